"""Who may do what, and how much of it: addresses that misbehave, callers and who they are, quotas."""
