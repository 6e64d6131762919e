"""What ticks: a Celery beat scheduler that runs its entries in place, and the tables of what each process schedules."""
