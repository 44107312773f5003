"""From a store to batches: which windows, in which order, put together how."""
