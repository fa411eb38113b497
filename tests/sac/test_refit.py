"""What operators say of final frames changes the classifier, and an appeal takes its reward back."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ray.exceptions import RayActorError
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from sac_parts import SPACES

from hil_rllib.collect.classifier_reward import ClassifierSpec
from hil_rllib.collect.statistics import Statistics
from hil_rllib.contract import APPEAL, CAMERAS, CLASSIFIED, IS_INTERVENTION, RERECORD, VERDICT
from hil_rllib.data.experience import Experience
from hil_rllib.data.replay import Ring
from hil_rllib.models.success import SuccessHead
from hil_rllib.sac.algorithm import HILSAC
from hil_rllib.sac.appeals import Appeals
from hil_rllib.sac.refit import Refits, Refitter

SIZES = {"latent_dim": 8, "per_channel": 1, "dropout": 0.0, "hidden": 8}
KINDS = {"failure": -1.0, "success": 1.0, "fooled": 1.0}  # mean of the features


def maps(kind, count, seed=0):
    noise = np.random.default_rng(seed).normal(KINDS[kind], 0.3, (count, 512, 4, 4)).astype(np.float16)
    if kind == "fooled":  # like success, but for a quarter of the channels
        noise[:, :128] -= 2.0
    return dict.fromkeys(CAMERAS, noise)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """A classifier of two clouds of features."""
    torch.manual_seed(0)
    both = [maps("failure", 80), maps("success", 80, 1)]
    frames = {camera: np.concatenate([m[camera] for m in both]) for camera in CAMERAS}
    labels = np.repeat([False, True], 80)
    head = SuccessHead(**SIZES)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(20):
        logits = head({camera: torch.from_numpy(f) for camera, f in frames.items()})
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    file = tmp_path_factory.mktemp("run") / "frames.npz"
    np.savez(file, **frames, labels=labels, train=np.arange(160) % 2 == 0)
    state = {name: value.numpy().copy() for name, value in head.state_dict().items()}
    return ClassifierSpec(SIZES, state, "random", 0, precision=0.99, frames=str(file))


def calls_success(refitter, kind):
    features = {camera: torch.from_numpy(f) for camera, f in maps(kind, 20, seed=9).items()}
    with torch.no_grad():
        return float((refitter._head.probability(features) >= refitter._head.threshold).float().mean())


@pytest.fixture
def refitter(spec, monkeypatch):
    monkeypatch.setattr("os.nice", lambda _: 0)  # this process's own priority stays
    return Refitter(spec, seed=0)


def test_verdicts_teach_the_classifier_what_fooled_it_and_it_keeps_what_it_knew(refitter):
    assert calls_success(refitter, "fooled") > 0.9
    assert refitter.newest(0) is None
    shown = maps("fooled", 10, seed=5)
    refitter.refit([{camera: shown[camera][i] for camera in CAMERAS} for i in range(10)], [False] * 10)
    assert calls_success(refitter, "fooled") < 0.1
    assert calls_success(refitter, "success") > 0.9
    assert calls_success(refitter, "failure") == 0.0
    version, state = refitter.newest(0)
    assert (version, refitter.newest(10)) == (10, None)
    assert state.keys() == refitter._head.state_dict().keys()


def test_a_resumed_refitter_is_the_same_one(refitter, spec):
    shown = maps("fooled", 2)
    refitter.refit([{camera: shown[camera][i] for camera in CAMERAS} for i in range(2)], [False, True])
    other = Refitter(spec, seed=0)
    other.set_state(refitter.get_state())
    for name, value in refitter._head.state_dict().items():
        assert torch.equal(other._head.state_dict()[name], value)
    assert other.newest(0)[0] == 2


# -- the learner's side ----------------------------------------------------------------------------


class Ordered:
    """Stands in for the actor's handle."""

    def __init__(self):
        self.orders = []
        self.state = {"verdicts": np.array(0), "version": np.array(0)}
        self.refit = SimpleNamespace(remote=self._refit)
        self.get_state = SimpleNamespace(remote=lambda: self.state)
        self.set_state = SimpleNamespace(remote=lambda state: setattr(self, "state", state))

    def _refit(self, features, labels):
        self.orders.append((list(features), list(labels)))  # Ray sends a copy
        self.state = {"verdicts": np.array(len(labels)), "version": np.array(len(labels))}


@pytest.fixture
def begin(spec, monkeypatch, tmp_path):
    """Refits of a run in `tmp_path`; called again, those of its next session."""
    monkeypatch.setattr("ray.remote", lambda **_: lambda _: SimpleNamespace(remote=lambda *_: Ordered()))
    monkeypatch.setattr("ray.get", lambda answer: answer)
    monkeypatch.setattr("ray.kill", lambda _: None)
    run = SimpleNamespace(seed=0, dir=str(tmp_path))
    hil = SimpleNamespace(reward=SimpleNamespace(refit_every_episodes=2), run=run)
    begun = []

    def begin(checkpoint=None):
        begun.append(Refits(SimpleNamespace(hil=hil, classifier=spec, refitter="x")))
        begun[-1].recover(checkpoint)
        return begun[-1]

    yield begin
    for refits in begun:
        refits.close()


@pytest.fixture
def refits(begin):
    return begin()


def episode(last, *, value=0.0, steps=3, first=None, done=True, by_hand=False):
    """An operator's episode; info of its first and last step."""
    infos = [{}, *({} for _ in range(steps))]
    infos[1] |= first or {}
    infos[-1] |= last
    observation = {
        "agent_pos": np.zeros(18, np.float32),
        "features": {camera: np.full((512, 4, 4), value, np.float16) for camera in CAMERAS},
    }
    made = SingleAgentEpisode(
        observations=[observation] * (steps + 1), infos=infos, actions=[np.zeros(4, np.float32)] * steps,
        rewards=[0.0] * (steps - 1) + [1.0], terminated=done,
        extra_model_outputs={IS_INTERVENTION: [np.float32(by_hand)] * steps, WEIGHTS_SEQ_NO: [0] * steps},
        len_lookback_buffer=0,
    )  # fmt: skip
    return made.to_numpy()


@pytest.fixture
def rings():
    return [Ring(50, SPACES["features"]) for _ in range(2)]


@pytest.fixture
def store(rings, tmp_path):
    """The algorithm's own `_store`, with refits or without."""
    experience, appeals = Experience(*rings, tmp_path / "replay"), Appeals()
    operator = SimpleNamespace(name="operator", operator=True, realtime=False)

    def store(one, refits=None):
        loop = SimpleNamespace(
            stats=Statistics(),
            experience=experience,
            pushes=0,
            attention=None,
            appeals=appeals,
            refits=refits,
        )
        HILSAC._store(loop, operator, one)

    yield store
    experience.close()


@pytest.fixture
def stored(store, refits):
    return partial(store, refits=refits)


def test_verdicts_become_labels_and_every_so_many_order_a_refit(refits, stored):
    stored(episode({VERDICT: True}, value=1.0))
    stored(episode({}))  # the time limit says nothing
    stored(episode({RERECORD: True, CLASSIFIED: True}))
    assert (refits.verdicts, refits.actor.orders) == (1, [])
    stored(episode({VERDICT: False}, value=2.0))
    ((features, labels),) = refits.actor.orders
    assert labels == [True, False]
    assert [float(f["wrist"].mean()) for f in features] == [1.0, 2.0]


def test_an_appeal_takes_the_reward_back_where_nothing_is_refitted_too(store, rings):
    store(episode({CLASSIFIED: True}, by_hand=True))
    store(episode({}, first={APPEAL: True}, done=False))
    for ring in rings:
        assert not ring.steps[Columns.REWARDS][:4].any()
        assert not ring.steps[Columns.TERMINATEDS][:4].any()


def test_an_appeal_labels_the_last_claim_and_takes_its_reward_back(refits, stored, rings):
    stored(episode({CLASSIFIED: True}, value=3.0, by_hand=True))
    for ring in rings:
        assert ring.steps[Columns.REWARDS][:4].tolist() == [0, 0, 1, 0]
        assert ring.steps[Columns.TERMINATEDS][2]
    stored(episode({}, first={APPEAL: True}, done=False))
    for ring in rings:
        assert not ring.steps[Columns.REWARDS][:4].any()
        assert not ring.steps[Columns.TERMINATEDS][:4].any()
    assert refits._labels == [False]
    assert float(refits._features[0]["front"].mean()) == 3.0
    stored(episode({}, first={APPEAL: True}))  # there is nothing more to appeal against
    assert refits.verdicts == 1


def judge(refits, *verdicts):
    for value, verdict in verdicts:
        refits.add(episode({VERDICT: verdict}, value=value))


def said(refits):
    return [
        (float(f["wrist"].mean()), label) for f, label in zip(refits._features, refits._labels, strict=True)
    ]


def test_verdicts_outlive_a_crash_each_once_whatever_the_last_checkpoint_saw(begin, tmp_path):
    refits = begin()
    judge(refits, (1.0, True), (2.0, False), (3.0, False))
    refits.save(tmp_path)
    judge(refits, (4.0, True))
    expected = [(1.0, True), (2.0, False), (3.0, False), (4.0, True)]
    refits.close()  # as a second later by itself
    resumed = begin(tmp_path)
    assert said(resumed) == expected
    (order,) = resumed.actor.orders  # two of them were in no refit that the checkpoint has
    assert order[1] == [label for _, label in expected]
    judge(resumed, (5.0, True))
    assert len(resumed.actor.orders) == 1
    resumed.close()
    assert begin().verdicts == 5  # without a checkpoint, too


def test_verdicts_in_a_checkpoint_of_an_earlier_release_come_over_once(begin, refitter, tmp_path):
    maps_of = {camera: np.full((3, 512, 4, 4), 7.0, np.float16) for camera in CAMERAS}
    old = {name: value for name, value in refitter.get_state().items() if name.startswith("head.")}
    np.savez(tmp_path / "refit.npz", **old, **maps_of, labels=[True, True, False], version=1)
    refits = begin(tmp_path)
    judge(refits, (8.0, True))
    refits.close()
    resumed = begin(tmp_path)
    assert said(resumed) == [(7.0, True), (7.0, True), (7.0, False), (8.0, True)]
    assert resumed.actor.orders == []  # one waits


def test_a_killed_refitter_costs_no_checkpoint_and_learns_all_verdicts_again(begin, tmp_path):
    refits = begin()
    judge(refits, (1.0, True), (2.0, False), (3.0, False))
    refits.actor.state["verdicts"] = np.array(0)  # Ray has started it again
    refits.save(tmp_path)
    assert not (tmp_path / "refit.npz").exists()
    assert [labels for _, labels in refits.actor.orders] == [[True, False], [True, False, False]]

    def gone():
        raise RayActorError

    refits.actor.get_state.remote = gone
    refits.save(tmp_path)
    assert len(refits.actor.orders) == 3
    refits.close()
    resumed = begin(tmp_path)  # from a checkpoint without its classifier
    assert [labels for _, labels in resumed.actor.orders] == [[True, False, False]]
