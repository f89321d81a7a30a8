"""The outputs of a job's teachers, computed once and cached; several teachers as one."""
