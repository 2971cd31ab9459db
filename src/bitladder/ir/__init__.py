"""What a network is: the graph, the meaning of its operators, and rewrites from graph to graph."""
