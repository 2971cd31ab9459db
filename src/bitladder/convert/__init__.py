"""Other people's graphs, in and out."""
