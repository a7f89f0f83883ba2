"""Every knob of membership, with its unit, why it has its value, and what gets worse in each direction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """Immutable; one per core. The defaults find a power cut in about a second and wait five for a stalled daemon."""

    probe_interval_s: float = 0.25
    """Between two rounds of pings; times (health score + 1). Lower finds death sooner and costs 0.2 ms of CPU per ping."""
    direct_timeout_s: float = 0.15
    """For the answer to a direct ping; times (score + 1), and never under three round trips. A loop at nice -20 is late by at
    most 0.12 s under load (p99), so lower makes every busy peer an investigation, higher delays the first connect."""
    round_trip_max_s: float = 0.5
    """What takes longer is a slow daemon and no long path, and makes nobody wait three times as long for its answers."""
    everyone_probes_max: int = 10
    """Up to this many members everyone pings everyone in every round; beyond, `probes_per_round` of a shuffled ring."""
    probes_per_round: int = 3
    """First detection takes about 1.58 / this rounds whatever the size (SWIM, section 3.1)."""
    indirect_probes: int = 3
    """k: helpers asked to ping and to connect. More see round more broken paths and cost packets."""
    connect_timeout_s: float = 0.25
    """One TCP connect. A living kernel answers in 0.1 to 1.4 ms however busy its host is; a lost SYN is tried again by us."""
    suspect_after_s: float = 0.3
    """From the lost ping to the accusation: one ping and one connect by the helpers and their reports."""
    stall_told_share: float = 0.4
    """Part of a stall's whole suspicion after which others are told of it: 2 s, 4 s from 100 members on. With 30 % loss a
    member misses 22 % of its peers for 450 ms, and 1,000 of them would tell of nothing else; four rounds of helpers on, 0.5 %."""
    start_grace_s: float = 3.0
    """A daemon whose start was heard of less than this ago is not suspected for missing answers: it sets up its streams, and
    opens nobody's packets before each of them has said over one where its counter stands. Kernels are believed as ever."""
    suspicion_min_s: float = 0.3
    """Shortest suspicion, with all confirmations; times (score + 1)."""
    suspicion_max_s: float = 5.0
    """Longest suspicion, and the whole of it for a stalled daemon: the longest stalls measured on healthy hosts were 1.6 s."""
    confirmations: int = 2
    """Independent observers, besides this one, whose kernel evidence shortens suspicion to its minimum (Lifeguard's K)."""
    silent_connects_min: int = 3
    """Own connects in a row without any answer before a host is called silent, when others confirm it: 0.9 s from the lost ping.
    One less finds death at 0.65 s and takes a switch's hiccup for it."""
    silent_connects_alone_min: int = 4
    """The same when there is nobody who could confirm it (two nodes)."""
    case_repeat_s: float = 0.5
    """Between two pings, and two rounds of helpers, in one investigation; times (score + 1)."""
    contact_fresh_s: float = 0.75
    """Who answered us within this time is not believed dead on another's word: it is asked first. Three probe rounds."""
    heard_fresh_s: float = 0.6
    """Age at which a packet from a member no longer proves that its host is up: two of its probe rounds and some lag."""
    observation_fresh_s: float = 2.0
    """Age at which an observation by a helper no longer counts."""
    gossip_interval_s: float = 0.2
    """Between two rounds of rumours when there is something to say; news goes at once but for `gossip_spacing_s`."""
    gossip_spacing_s: float = 0.02
    """Shortest time between two rounds of rumours, so that a burst of changes shares packets."""
    gossip_fanout: int = 3
    """Members told per round; all of them up to `everyone_probes_max`."""
    retransmit_factor: int = 6
    """A rumour is sent this times ceil(log10(N + 1)) times by each member. Some go to members that know it already (an answer to
    who just told it), so with memberlist's 4 and 30 % loss one update in ten missed somebody among 1,000 for up to 37 s."""
    packet_bytes_max: int = 1336
    """Plaintext of a packet: 1,400 less 64 for the seal."""
    sample_bytes_max: int = 440
    """Of them for samples of load, which never crowd out news of members."""
    sample_sends: int = 4
    """Each member passes a sample on this many times: 98 % hear of it (1 - z = exp(-4 z)), and the next one is not far.
    More cost bytes in proportion; membership's own news is sent more often, since nothing follows it."""
    sample_interval_s: float = 1.0
    """Between two samples of one node in a small cluster. Lower than the sampler's pace changes nothing."""
    sample_bytes_per_s: float = 6_000.0
    """What a member spends on passing samples on; decides the interval where N makes it longer than `sample_interval_s`:
    1.2 s at 30 members, 4 s at 100, 40 s at 1,000. Lower makes loads older."""
    sample_change_permille: int = 100
    """A ratio that moved by this much is told early: a tenth of a machine decides where the next task goes."""
    sample_slack_s: float = 0.1
    """The sampler's wake is late or early by some ms; without this a sample would miss its turn and wait for the next second."""
    sync_interval_s: float = 30.0
    """Between two exchanges of whole tables with one random member; times 1 + log2(N / 32) beyond 32 members."""
    dead_retry_interval_s: float = 2.0
    """Every so often one dead member is pinged: heals splits. Costs half a packet a second."""
    dead_retry_for_s: float = 24 * 3600.0
    """How long dead members are retried."""
    leave_linger_s: float = 1.0
    """A leaver goes on answering for this long, so that nobody takes its leaving for death."""
    health_score_max: int = 7
    """Local health runs from 0 (well) to this: timeouts grow at most eightfold (Lifeguard's S = 8)."""
    errands_max: int = 64
    """Probes on behalf of others in flight at once; more are dropped."""
