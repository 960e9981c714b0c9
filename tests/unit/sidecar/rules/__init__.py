"""Rules: plans, their spelling, and what is refused."""
