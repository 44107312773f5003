"""What every training run shares: optimisers, schedules, resumption, logs, the run folder."""
