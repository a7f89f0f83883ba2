"""What other programs call a command -> what to type here (several with " or " between), for each group."""

TASK = {
    "run": "swarm task submit", "create": "swarm task submit", "start": "swarm task submit", "ps": "swarm task ls",
    "list": "swarm task ls", "show": "swarm task inspect", "kill": "swarm task stop", "remove": "swarm task rm",
    "delete": "swarm task rm", "events": "swarm events", "history": "swarm history",
}  # fmt: skip
NODE = {
    "list": "swarm node ls", "ps": "swarm task ls", "show": "swarm node inspect", "remove": "swarm node rm",
    "delete": "swarm node rm", "update": "swarm node label or swarm node drain", "leave": "swarm down --drain",
    "join": "swarm up --peers HOST",
}  # fmt: skip
SWARM = {
    "leave": "swarm down --drain", "join": "swarm up --peers HOST", "init": "swarm up", "run": "swarm task submit",
    "create": "swarm task submit", "deploy": "swarm task submit --file PATH", "ps": "swarm task ls",
    "ls": "swarm task ls or swarm node ls", "nodes": "swarm node ls", "tasks": "swarm task ls",
    "inspect": "swarm task inspect or swarm node inspect", "kill": "swarm task stop", "service": "swarm task",
    "rm": "swarm task rm or swarm node rm", "info": "swarm status", "version": "swarm --version", "help": "swarm --help",
    "log": "swarm task logs",
}  # fmt: skip
