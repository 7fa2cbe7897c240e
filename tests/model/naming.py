"""States that differ in the names of processes and epochs alone are one state."""

from __future__ import annotations

from tests.model.parts import Process, State, Work


def canonical(state: State) -> State:
    """Return the one state that stands for all that differ in names alone."""
    processes = state.processes
    if len(processes) == 2:
        one, other = map(_nameless, processes)
        if one > other:
            processes = (processes[1], processes[0])
        elif one == other:
            orders = (processes, (processes[1], processes[0]))
            return min((_renamed(state, order) for order in orders), key=_order)
    return _renamed(state, processes)


def _order(state: State) -> tuple[object, ...]:
    return (state.processes, state.entry or (), state.rows, state.flying, state.history)


def _nameless(process: Process) -> tuple[object, ...]:
    works = tuple((w.token, w.phase, w.age) for w in process.works)
    return (process.mode, process.heard, process.asked[1:], works)


def _renamed(state: State, processes: tuple[Process, ...]) -> State:
    names: dict[int, int] = {0: 0}

    def name(epoch: int) -> int:
        return names.setdefault(epoch, len(names))

    def works(of: tuple[Work, ...]) -> tuple[Work, ...]:
        return tuple(w._replace(epoch=name(w.epoch)) for w in of)

    renamed = tuple(
        Process(
            p.mode,
            name(p.epoch),
            p.heard,
            (name(p.asked[0]), p.asked[1]) if p.asked else (),
            works(p.works),
        )
        for p in processes
    )
    entry = state.entry
    # Who recorded a lease matters only to whoever may record it again.
    again = {work.lease_no for process in processes for work in process.works}
    again |= {work.lease_no for work in state.flying}
    return state._replace(
        processes=renamed,
        entry=entry and entry._replace(owner=name(entry.owner)),
        flying=works(state.flying),
        history=tuple(
            k._replace(epoch=name(k.epoch) if k.lease_no in again else 0) for k in state.history
        ),
        rows=tuple(sorted(r._replace(epoch=name(r.epoch)) for r in state.rows)),
    )
