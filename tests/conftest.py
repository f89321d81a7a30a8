"""For every test, before torch is imported: several trainings at once must not fight for the cores."""

from worker.threads import let_idle_threads_sleep

let_idle_threads_sleep()
