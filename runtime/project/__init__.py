"""One build: interview, plan, TODO, schedule, verification, delivery."""
