"""The rooms with gradients. They know torch modules, formats and statistics, and no graph."""
