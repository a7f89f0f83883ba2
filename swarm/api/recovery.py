"""`/v1/recovery`: what a survivor of a lost quorum has, what would be lost, and the order to go on without the others."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import Api, json_answer, read_json
from swarm.consensus.quorum import voters_of
from swarm.consensus.recovery import Look, Survey
from swarm.errors import Conflict
from swarm.model.generation import generation_text, number_of
from swarm.model.ids import NodeId
from swarm.schema.request import check_fields
from swarm.schema.shapes import Shape


async def get_survey(api: Api, request: Request) -> Response:
    """GET /v1/recovery: where this node and the others that answer stand, the missing voters, and what a recovery here would
    lose. On the Unix socket only."""
    survey = await api.face.survey_recovery()
    return json_answer(survey_shape(api, survey))


async def begin(api: Api, request: Request) -> Response:
    """POST /v1/recovery {confirm: this node's name, even_behind?}: 202; a new recovery generation begins with this node as its
    only voter, and the daemon starts anew after this answer. On the Unix socket only."""
    body = await read_json(request)
    check_fields(body, {"confirm": str, "even_behind": bool})
    generation = await api.face.begin_recovery(confirm=str(body.get("confirm", "")), even_behind=bool(body.get("even_behind")))
    return json_answer({"recovery": number_of(generation), "generation": generation_text(generation)}, status=202)


def survey_shape(api: Api, survey: Survey) -> Shape:
    """For people and programs."""
    generation = api.face.consensus().recovery_generation
    missing = [_missing_shape(api, NodeId(voter.node_id)) for voter in survey.missing]
    return {
        "node": _name(api, survey.mine.node_id),
        "cluster_id": api.face.catalog.cluster_id,
        "recovery": number_of(generation),
        "generation": generation_text(generation),
        "quorum": survey.has_quorum,
        "leader": _name(api, survey.leader.node_id) if survey.leader is not None else None,
        "best": _name(api, survey.best.node_id),
        "mine": _look_shape(api, survey.mine),
        "others": [_look_shape(api, look) for look in survey.others],
        "missing": missing,
        "needless": (needless := _needless(api, survey)),
        "lost": [] if needless else _may_be_lost(api, survey, [str(each["name"]) for each in missing]),
        "refused": _refusal(api, survey),
    }


def _missing_shape(api: Api, node_id: NodeId) -> Shape:
    member = api.face.members().get(node_id)
    return {"id": node_id, "name": _name(api, node_id), "status": member.status.value if member is not None else ""}


def _look_shape(api: Api, look: Look) -> Shape:
    return {
        "id": look.node_id,
        "name": _name(api, look.node_id),
        "term": look.term,
        "last_index": look.last_index,
        "last_term": look.last_term,
        "commit_index": look.commit_index,
        "applied_index": look.applied_index,
        "leader_age_s": round(look.leader_age_s, 1) if look.leader_age_s >= 0 else None,
        "leads": look.leads,
    }


def _refusal(api: Api, survey: Survey) -> str:
    """Why a recovery here would be refused; empty when it would not."""
    try:
        api.face.refuse_recovery(survey)
    except Conflict as refused:
        return f"{refused.message}: {refused.cause}" if refused.cause else refused.message
    return ""


def _needless(api: Api, survey: Survey) -> str:
    """Why there is nothing to recover, in words; empty where there may be."""
    if survey.mine.last_index == 0 or (survey.has_rival and survey.mine.leads):
        return ""
    leader, total = survey.leader, len(voters_of(survey.configuration))
    there = f"{total - len(survey.missing)} of {total} voters"
    if leader is not None and leader.leads:
        return f"{_name(api, leader.node_id)} leads with {there}"
    if leader is not None:
        return f"{_name(api, leader.node_id)} heard a leader {leader.leader_age_s:.1f} s ago"
    return f"{there} are here, and will elect a leader" if survey.has_quorum else ""


def _may_be_lost(api: Api, survey: Survey, missing: list[str]) -> list[str]:
    """One line each, for whoever has to decide."""
    mine, gone = survey.mine, ", ".join(missing) or "no voter"
    age = f"{mine.leader_age_s:.0f} s ago" if mine.leader_age_s >= 0 else "not since this daemon started"
    lines = [f"kept: everything in the log of this node, up to entry {mine.last_index}; it last heard a leader {age}"]
    if survey.is_small:
        lines.append(
            "lost: what the only voter acknowledged while this node did not answer it; "
            "what it acknowledged before is on every node that answered, on at most two, and so in the newest log of them"
        )
    else:
        lines.append(f"lost: what a majority of the voters acknowledged and only the missing have ({gone})")
    if survey.best.node_id != mine.node_id:
        end = f"entry {survey.best.last_index} of term {survey.best.last_term}"
        lines.append(f"lost: what only the newer log of {_name(api, survey.best.node_id)} has, up to {end}")
    decides, they, them = ("decides", "it", "it") if len(missing) == 1 else ("decide", "they", "them")
    lines.append(f"lost: whatever {gone} {decides} from now on, should {they} be running where this node does not reach {them}")
    return lines


def _name(api: Api, node_id: str) -> str:
    node = api.face.catalog.nodes.get(NodeId(node_id))
    return node.name if node is not None else node_id
