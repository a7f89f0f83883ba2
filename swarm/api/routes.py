"""The table of routes, and the application made of it."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from swarm.api import backup, batch, cluster, events, history, nodes, queue, recovery, secret, seen, tasks
from swarm.api.calls import Api, Handler, endpoint, error_answer, json_answer
from swarm.errors import OperatorError
from swarm.schema.openapi import openapi_document


@dataclass(frozen=True, slots=True)
class Entrance:
    """One route: where, how, what answers, and who may call."""

    method: str
    path: str
    handler: Handler
    public: bool = False
    local_only: bool = False


ROUTES = (
    Entrance("GET", "/v1/tasks", tasks.list_tasks),
    Entrance("POST", "/v1/tasks", tasks.submit_task),
    Entrance("POST", "/v1/tasks/batch", batch.submit_batch),
    Entrance("POST", "/v1/tasks/phases", batch.get_phases),
    Entrance("GET", "/v1/tasks/{ref}", tasks.get_task),
    Entrance("DELETE", "/v1/tasks/{ref}", tasks.remove_task),
    Entrance("POST", "/v1/tasks/{ref}/stop", tasks.stop_task),
    Entrance("GET", "/v1/tasks/{ref}/explain", tasks.explain_task),
    Entrance("GET", "/v1/tasks/{ref}/logs", tasks.task_logs),
    Entrance("GET", "/v1/queue", queue.list_queue),
    Entrance("DELETE", "/v1/queue/{ref}", queue.remove_queued),
    Entrance("GET", "/v1/nodes", nodes.list_nodes),
    Entrance("GET", "/v1/nodes/{ref}", nodes.get_node),
    Entrance("PATCH", "/v1/nodes/{ref}", nodes.patch_node),
    Entrance("DELETE", "/v1/nodes/{ref}", nodes.remove_node),
    Entrance("POST", "/v1/nodes/{ref}/drain", nodes.drain_node),
    Entrance("POST", "/v1/nodes/{ref}/confirm-dead", nodes.confirm_dead),
    Entrance("GET", "/v1/secret", secret.get_secret),
    Entrance("POST", "/v1/secret/rotate", secret.rotate_secret),
    Entrance("GET", "/v1/rtt", seen.get_round_trips),
    Entrance("GET", "/v1/counters", seen.get_counters),
    Entrance("GET", "/v1/status", cluster.get_status),
    Entrance("GET", "/v1/events", events.get_events),
    Entrance("GET", "/v1/history", history.get_history),
    Entrance("GET", "/v1/state", history.get_state),
    Entrance("GET", "/v1/diff", history.get_diff),
    Entrance("GET", "/v1/tokens", cluster.list_tokens),
    Entrance("POST", "/v1/tokens", cluster.create_token),
    Entrance("DELETE", "/v1/tokens/{token_id}", cluster.revoke_token),
    Entrance("GET", "/v1/join-token", cluster.get_join_token, local_only=True),
    Entrance("GET", "/v1/backup", backup.get_backup),
    Entrance("GET", "/v1/backups", backup.list_backups),
    Entrance("GET", "/v1/recovery", recovery.get_survey, local_only=True),
    Entrance("POST", "/v1/recovery", recovery.begin, local_only=True),
    Entrance("POST", "/v1/shutdown", cluster.shut_down, local_only=True),
    Entrance("GET", "/v1/authority", cluster.get_authority, public=True),
)


class NoSuchRoute(OperatorError):
    """The path or method is none of the API's. Nothing was done."""

    code = "not_found"
    http_status = 404


def build_app(api: Api) -> Starlette:
    """The application. It has no lifespan and keeps nothing between requests but `api`."""

    async def serve_openapi(api: Api, request: Request) -> Response:
        return json_answer(openapi_document((r.method, r.path, r.handler.__doc__ or "") for r in ROUTES))

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return error_answer_of(error, request)

    entrances = (*ROUTES, Entrance("GET", "/v1/openapi.json", serve_openapi, public=True))
    routes = [
        Route(each.path, endpoint(api, each.handler, public=each.public, local_only=each.local_only), methods=[each.method])
        for each in entrances
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: refuse})


def error_answer_of(error: HTTPException, request: Request) -> Response:
    """404 and 405 in the shape of every other error."""
    refused = NoSuchRoute(
        f"there is no {request.method} {request.url.path[:200]}",
        cause=str(error.detail),
        hint="GET /v1/openapi.json lists what there is",
    )
    answer = error_answer(refused)
    answer.status_code = error.status_code
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer
