"""How it starts: the `masterbuilder` command, launch and supervision, the simulator, deploy files."""
