"""The execution of stages: runner, engines, manifests, tasks, shuffles."""
