"""The embedded job server: Gearman in one process, jobs in SQLite, on disk before JOB_CREATED."""
