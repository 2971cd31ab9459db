"""What is known of numbers that are not kept. Every statistic is a fold: `of` one batch, `update`, `merge`."""
