"""One run: its creation, composition, evaluation, plan and forks."""
