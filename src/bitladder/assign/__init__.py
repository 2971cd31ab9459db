"""Which layers can do with fewer bits: criteria rank them, searches turn a ranking and a budget into a choice."""
