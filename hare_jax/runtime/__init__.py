"""Devices and processes: the mesh, multi-process runs, preemption and the watchdog."""
