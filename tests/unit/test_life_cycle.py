"""A client makes only the transitions of its table of states, and docs/architecture.md shows all of them."""

import itertools
import re
from pathlib import Path

import pytest

from tb_mqtt_client import ClientState
from tb_mqtt_client.service.life_cycle import TRANSITIONS, IllegalTransitionError, LifeCycle

DOCS = Path(__file__).parents[2] / "docs"


def life_in(state):
    """Return a life cycle that has reached a state by allowed transitions."""
    paths, queue = {ClientState.NEW: []}, [ClientState.NEW]
    for reached in queue:
        for following in TRANSITIONS[reached]:
            if following not in paths:
                paths[following] = [*paths[reached], following]
                queue.append(following)
    life = LifeCycle()
    for step in paths[state]:
        life.change(step)
    return life


@pytest.mark.parametrize(("state", "following"), list(itertools.product(ClientState, repeat=2)), ids=lambda state: state.name)
def test_only_transitions_of_the_table_are_made(state, following):
    life, seen = life_in(state), []
    life.listeners.append(lambda *change: seen.append(change))
    if following in TRANSITIONS[state]:
        life.change(following)
        assert seen == [(state, following)]
    else:
        with pytest.raises(IllegalTransitionError, match=f"that is {state.value} cannot become {following.value}"):
            life.change(following)
        assert (life.state, seen) == (state, [])
    assert life.accepts_sends == life.state.accepts_sends


def test_a_session_changes_only_clients_that_want_one():
    for state in ClientState:
        life = life_in(state)
        if ClientState.RECONNECTING in TRANSITIONS[state]:
            life.follow_session(ClientState.RECONNECTING)
            assert life.state is ClientState.RECONNECTING
        elif not state.wants_connection:
            life.follow_session(ClientState.RECONNECTING)
            assert life.state is state


def test_the_diagram_shows_all_transitions():
    [diagram] = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", (DOCS / "architecture.md").read_text(), re.DOTALL)
    shown = re.findall(r"(\w+) --> (\w+)", diagram)
    assert sorted(shown) == sorted((state.name, following.name) for state in TRANSITIONS for following in TRANSITIONS[state])


def test_the_table_of_states_is_complete():
    section = (DOCS / "devices.md").read_text().partition("### States of a client")[2]
    rows = re.findall(r"^\| .* \| `([A-Z_]+)` \| (.*) \|$", section, re.MULTILINE)
    assert [(name, "raise" not in sends) for name, sends in rows[: len(ClientState)]] == [
        (state.name, state.accepts_sends) for state in ClientState
    ]
