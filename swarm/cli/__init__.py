"""The `swarm` command. Each command's module is imported only when the command is used."""
