"""From recordings and rates to neurons, by a loop that knows none."""
