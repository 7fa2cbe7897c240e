"""The protocol between the store and its dispatchers, small enough to be explored whole.

One job, a few processes, time in ticks. Each action is one atomic step of the real thing: a
statement that Postgres carries out, an answer that arrives, a decision in a process, a fault.
`Rules` are the precautions; a test takes them away one by one. docs/model tells it in words.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.parts import (
    DEAD,
    FRESH,
    LEASE,
    Bounds,
    Broken,
    Entry,
    Kept,
    Phase,
    Process,
    Row,
    Rules,
    State,
    Step,
    Work,
)


def steps(state: State, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    """Yield every step that can come next. Raises Broken."""
    yield from _replay(state, rules, bounds)
    for work in state.flying:
        rest = tuple(w for w in state.flying if w != work)
        yield "a statement arrives late", record(state, work, rules, bounds)._replace(flying=rest)
    if state.entry is None and not any(map(_may_still_start, state.processes)):
        yield from _afterwards(state, rules, bounds)
        return
    yield from _tick(state)
    for number, process in enumerate(state.processes):
        yield from _claim_is_carried_out(state, number, process)
        if process.mode == "up":
            yield from _heartbeat(state, number, process, rules)
            yield from _bury_and_rescue(state, number, rules, bounds)
            yield from _claim_is_sent(state, number, process, bounds, rules)
            for at in range(len(process.works)):
                yield from _work(state, number, process, at, rules, bounds)
        else:
            yield f"{number} connects", connect(state, number, process, rules)
        if state.faults < bounds.faults:
            yield from _faults(state._replace(faults=state.faults + 1), number, process, bounds)


def _may_still_start(process: Process) -> bool:
    return any(work.phase == "ready" for work in process.works)


def _afterwards(state: State, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    """The job is over: what matters is what attempts that still run will say of it."""
    for number, process in enumerate(state.processes):
        if process.works and process.mode == "away":
            yield f"{number} connects", connect(state, number, process, rules)
        elif process.mode == "up":
            for at in range(len(process.works)):
                yield from _work(state, number, process, at, rules, bounds)


def _tick(state: State) -> Iterator[Step]:
    def older(process: Process) -> Process:
        return process._replace(
            heard=min(process.heard + 1, FRESH),
            asked=(process.asked[0], 1) if process.asked else (),
            works=tuple(w._replace(age=1) if w.phase == "ready" else w for w in process.works),
        )

    entry = state.entry
    after = state._replace(
        entry=entry and entry._replace(ttl=max(entry.ttl - 1, 0)),
        rows=tuple(row._replace(age=min(row.age + 1, LEASE)) for row in state.rows),
        processes=tuple(p if p.mode == "dead" else older(p) for p in state.processes),
    )
    if after != state:
        yield "time passes", after


def _replay(state: State, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    ended = [kept for kept in state.history if kept.terminal and not kept.late]
    if state.entry is not None or not ended:
        return
    last = max(ended, key=lambda kept: kept.series)
    if last.said != "failed" or last.series >= bounds.series:
        return
    known = max(kept.lease_no for kept in state.history)
    lease_no = known if rules.lease_no_outlives_series else 0
    yield "replayed", state._replace(entry=Entry(0, lease_no, last.series + 1, 0, 0, 0, 0))


def _heartbeat(state: State, number: int, process: Process, rules: Rules) -> Iterator[Step]:
    # An answer that comes a tick later is no news, unless its age counts from when it came.
    if not rules.age_from_sending and process.heard:
        yield (
            f"{number} hears a late answer",
            state.with_process(number, process._replace(heard=0)),
        )
    mine = [row for row in state.rows if row.epoch == process.epoch]
    if not mine or mine[0].fenced:
        yield f"{number} hears that it is fenced", state.with_process(number, _left(process))
        return
    rows = tuple(r._replace(age=0) if r.epoch == process.epoch else r for r in state.rows)
    beaten = process._replace(heard=0)
    yield f"{number} beats", state._replace(rows=rows).with_process(number, beaten)


def _bury_and_rescue(state: State, number: int, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    mine = state.processes[number].epoch
    for row in state.rows:
        if not row.fenced and row.epoch != mine:
            if row.age >= LEASE or (row.age >= DEAD and not row.locked):
                rows = tuple(r._replace(fenced=True) if r == row else r for r in state.rows)
                yield f"{number} fences epoch {row.epoch}", state._replace(rows=rows)
        if row.fenced and (rules.rescue or state.entry is None or state.entry.owner != row.epoch):
            taken = _taken_back(state, {row.epoch}, bounds)
            rows = tuple(r for r in taken.rows if r != row)
            yield f"{number} rescues from epoch {row.epoch}", taken._replace(rows=rows)
    entry = state.entry
    if rules.rescue and entry is not None and entry.owner and entry.ttl == 0:
        taken = _taken_back(state, {entry.owner}, bounds)
        yield f"{number} rescues what outlived its lease", taken


def _taken_back(state: State, epochs: set[int], bounds: Bounds) -> State:
    entry = state.entry
    if entry is None or entry.owner not in epochs:
        return state
    ends = entry.crashes + 1 >= bounds.crashes
    said: Phase = "failed" if ends else "again"
    kept = Kept(entry.lease_no, False, ends, entry.series, 0, True, said)
    back = Entry(
        owner=0,
        lease_no=entry.lease_no + 1,
        series=entry.series,
        attempt=entry.attempt - 1,
        crashes=entry.crashes + 1,
        ttl=0,
        token=0,
    )
    taken = state._replace(entry=None if ends else back)
    if any((k.lease_no, k.late) == (kept.lease_no, False) for k in state.history):
        return taken  # on conflict do nothing
    return _with_history(taken, kept, entry.token)


def _may_start(process: Process, rules: Rules) -> bool:
    return process.heard < FRESH or not rules.self_fence


def _claim_is_sent(
    state: State, number: int, process: Process, bounds: Bounds, rules: Rules
) -> Iterator[Step]:
    if state.entry is None or state.entry.owner or state.claims >= bounds.claims:
        return
    if not process.asked and _may_start(process, rules):
        asking = process._replace(asked=(process.epoch, 0))
        yield f"{number} sends a claim", state.with_process(number, asking)


def _claim_is_carried_out(state: State, number: int, process: Process) -> Iterator[Step]:
    entry = state.entry
    if not process.asked:
        return
    epoch, age = process.asked
    answered = process._replace(asked=())
    # Nothing to claim, or the request was lost on its way.
    yield f"{number}'s claim finds nothing", state.with_process(number, answered)
    if entry is None or entry.owner:
        return
    token = state.claims + 1
    claimed = entry._replace(
        owner=epoch, lease_no=entry.lease_no + 1, attempt=entry.attempt + 1, ttl=LEASE, token=token
    )
    got = Work(token, claimed.lease_no, entry.series, claimed.attempt, epoch, age, "ready")
    after = state._replace(entry=claimed, claims=token)
    hears = process.mode == "up" and process.epoch == epoch
    if hears:
        answered = answered._replace(works=(*process.works, got))
    what = "claims" if hears else "claims without hearing of it"
    yield f"{number} {what}, lease {claimed.lease_no}", after.with_process(number, answered)


def _work(
    state: State, number: int, process: Process, at: int, rules: Rules, bounds: Bounds
) -> Iterator[Step]:
    work = process.works[at]

    def becoming(*changed: Work, base: State = state) -> State:
        works = (*process.works[:at], *changed, *process.works[at + 1 :])
        return base.with_process(number, process._replace(works=works))

    match work.phase:
        case "ready":
            long_enough = work.age + 1 < LEASE or not rules.lease_margin
            if _may_start(process, rules) and work.epoch == process.epoch and long_enough:
                _check_start(state, work)
                running = becoming(work._replace(phase="running", age=0))
                running = running._replace(unaudited=state.unaudited | {work.token})
                yield f"{number} starts lease {work.lease_no}", running
            else:
                yield f"{number} hands back", becoming(base=_released(state, work, rules))
        case "running":
            for outcome in _outcomes(work, bounds):
                yield from _record(state, number, process, at, outcome, rules, bounds)
            entry = state.entry
            if entry is not None and entry.ttl < LEASE and _matches(entry, work, Rules()):
                renewed = state._replace(entry=entry._replace(ttl=LEASE))
                yield f"{number} renews", renewed
        case "sent" | "again" | "failed":
            yield from _record(state, number, process, at, work.phase, rules, bounds)


def _outcomes(work: Work, bounds: Bounds) -> tuple[Phase, ...]:
    if work.series < bounds.series:
        return ("failed",)
    return ("sent", "again") if work.attempt < bounds.tries else ("sent",)


def _record(
    state: State,
    number: int,
    process: Process,
    at: int,
    outcome: Phase,
    rules: Rules,
    bounds: Bounds,
) -> Iterator[Step]:
    """The outcome is stored; or it is, and the answer is lost; or it will be, after a fault."""
    work = process.works[at]._replace(phase=outcome)
    others = (*process.works[:at], *process.works[at + 1 :])
    told = process._replace(works=others)
    untold = process._replace(works=(*process.works[:at], work, *process.works[at + 1 :]))
    stored = record(state, work, rules, bounds)
    what = f"lease {work.lease_no} as {outcome}"
    yield f"{number} records {what}", stored.with_process(number, told)
    if state.faults == bounds.faults:
        return
    for name, base in (("in vain", state), ("without hearing of it", stored)):
        hit = base._replace(faults=state.faults + 1)
        cut = _unlocked(hit.with_process(number, _left(untold)), process.epoch, bounds)
        yield f"{number} records {what} {name}, and is cut off", cut
    flies = state._replace(faults=state.faults + 1, flying=(*state.flying, work))
    for name, after in (("is cut off", _left(untold)), ("is killed", _dead(process))):
        struck = _unlocked(flies.with_process(number, after), process.epoch, bounds)
        yield f"{number} {name} while it records {what}", struck


def _matches(entry: Entry, work: Work, rules: Rules) -> bool:
    return (
        (entry.lease_no == work.lease_no or not rules.fence_lease_no)
        and (entry.owner == work.epoch or not rules.fence_epoch)
        and entry.owner != 0
    )


def _released(state: State, work: Work, rules: Rules) -> State:
    entry = state.entry
    if entry is None or not _matches(entry, work, rules):
        return state
    back = entry._replace(owner=0, attempt=entry.attempt - 1, ttl=0, token=0)
    return state._replace(entry=back)


def record(state: State, work: Work, rules: Rules, bounds: Bounds) -> State:
    """Store an outcome as record.sql does."""
    entry = state.entry
    if entry is None or not _matches(entry, work, rules):
        repeated = any(
            k.lease_no == work.lease_no and (k.late or (k.epoch == work.epoch and not k.lost))
            for k in state.history
        )
        if repeated:
            return state
        late = Kept(work.lease_no, True, False, work.series, work.epoch, False, work.phase)
        return _with_history(state, late, work.token)
    if entry.token != work.token:
        raise Broken("an outcome is stored only under the lease that made it")
    ends = work.phase != "again"
    kept = Kept(work.lease_no, False, ends, work.series, work.epoch, False, work.phase)
    later = entry._replace(owner=0, crashes=0, ttl=0, token=0)
    return _with_history(state._replace(entry=None if ends else later), kept, work.token)


def connect(state: State, number: int, process: Process, rules: Rules) -> State:
    """Begin a session: register, adopt what still runs, give the rest back, retire the old row."""
    old, new = process.epoch, _unused(state)
    rows = (*state.rows, Row(new, 0, True, False))
    works = process.works
    entry = state.entry
    if process.mode == "away":
        rows = tuple(row for row in rows if row.epoch != old)
        if entry is not None and entry.owner == old:
            lease = entry.lease_no

            def known(work: Work) -> bool:
                return work.lease_no == lease or not rules.adopt_by_lease

            if any(known(work) for work in works):
                if not any(work.lease_no == lease for work in works):
                    raise Broken("what a session carries over, its process works on")
                entry = entry._replace(owner=new)
                works = tuple(
                    w._replace(epoch=new) if w.epoch == old and known(w) else w for w in works
                )
            else:
                entry = entry._replace(owner=0, attempt=entry.attempt - 1, ttl=0, token=0)
    back = Process("up", new, 0, process.asked, works)
    after = state._replace(entry=entry, rows=rows)
    return after.with_process(number, back)


def _unused(state: State) -> int:
    """Return an epoch that stands nowhere: it has never been used, as far as anything can tell."""
    seen = {row.epoch for row in state.rows} | {kept.epoch for kept in state.history}
    seen |= {work.epoch for work in state.flying}
    seen |= {state.entry.owner} if state.entry else set()
    for process in state.processes:
        seen |= {process.epoch, *process.asked[:1]} | {work.epoch for work in process.works}
    return max(seen) + 1


def _left(process: Process) -> Process:
    """A process without a session: what it had not started is forgotten."""
    works = tuple(w for w in process.works if w.phase != "ready")
    return process._replace(mode="away", heard=FRESH, works=works)


def _dead(process: Process) -> Process:
    return process._replace(mode="dead", heard=FRESH, works=())


def _faults(state: State, number: int, process: Process, bounds: Bounds) -> Iterator[Step]:
    struck = [("is killed", _dead(process))] if process.mode != "dead" else []
    if process.mode == "up":
        struck.append(("is cut off", _left(process)))
    for what, after in struck:
        hit = state.with_process(number, after)
        yield f"{number} {what}", _unlocked(hit, process.epoch, bounds)


def _unlocked(state: State, epoch: int, bounds: Bounds) -> State:
    # A pooler keeps its connection to Postgres, and so the lock of the client that died.
    if bounds.pooled:
        return state
    rows = tuple(r._replace(locked=False) if r.epoch == epoch else r for r in state.rows)
    return state._replace(rows=rows)


def _with_history(state: State, kept: Kept, token: int) -> State:
    """Insert a row; the two unique indexes are invariants here."""
    for other in state.history:
        if (other.lease_no, other.late) == (kept.lease_no, kept.late):
            raise Broken("a lease is recorded once, and once more if it came late")
        if kept.terminal and other.terminal and other.series == kept.series:
            raise Broken("a series ends once")
    history = tuple(sorted((*state.history, kept)))
    return state._replace(history=history, unaudited=state.unaudited - {token})


def _check_start(state: State, work: Work) -> None:
    entry = state.entry
    if entry is None or entry.token != work.token:
        raise Broken("no attempt starts under a lease that has moved on")


def check(state: State, bounds: Bounds) -> None:
    """Check what must hold in every state. Raises Broken."""
    entry = state.entry
    ended = {kept.series for kept in state.history if kept.terminal and not kept.late}
    if entry is None and not ended:
        raise Broken("a job that was accepted waits or has ended")
    if entry is not None and entry.series in ended:
        raise Broken("a series that has ended is not in line")
    if entry is not None and not 0 <= entry.attempt <= bounds.tries:
        raise Broken("no more tries than there are, and none below zero")
    held = {work.token for process in state.processes for work in process.works}
    held |= {work.token for work in state.flying}
    if entry is not None:
        held.add(entry.token)
    if not state.unaudited <= held:
        raise Broken("every attempt that started is in the history, or will be")
