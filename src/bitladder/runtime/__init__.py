"""Making a graph happen: the reference is the specification."""
