"""`python traced_train.py TRACE CONFIG [key=value …]`: `hil_rllib.train`, writing down what its loop sees.

A line of JSON each: `places`, the node of every runner in service, whenever that changes; `arrived`, a
fragment from a runner; `stored`, what of it the online ring took.
"""

from __future__ import annotations

import json
import sys

from hil_rllib import train
from hil_rllib.contract import IS_INTERVENTION
from hil_rllib.sac.algorithm import HILSAC
from hil_rllib.sac.config import HILSACConfig

TRACE = sys.argv[1]


class Traced(HILSAC):
    def setup(self, config):
        super().setup(config)
        self.trace, self.places = open(config.trace, "a", buffering=1), {}  # noqa: SIM115 (as long as we live)
        add = self.online.add

        def traced(fragment):
            add(fragment)
            self.write("stored", id=fragment.episode_id, first=fragment.first_step, steps=len(fragment))

        self.online.add = traced

    def training_step(self):
        super().training_step()
        places = {
            runner.name: runner.node
            for group in self.collector.groups
            for index, runner in group.runners._runners.items()
            if index in group.runners.healthy_env_runner_ids()
        }
        if places != self.places:
            self.places = places
            self.write("places", **places)

    def _store(self, group, episode):
        self.write(
            "arrived",
            group=group.name,
            id=str(episode.id_),
            first=int(episode.t_started),
            steps=len(episode),
            done=bool(episode.is_done),
            human=int(sum(episode.get_extra_model_outputs(IS_INTERVENTION))) if len(episode) else 0,
        )
        super()._store(group, episode)

    def write(self, event, **values):
        self.trace.write(json.dumps({"event": event, **values}) + "\n")


class TracedConfig(HILSACConfig):
    def __init__(self, algo_class=None):
        super().__init__(algo_class=algo_class or Traced)
        self.trace = TRACE


if __name__ == "__main__":
    train.ALGORITHMS["sac"] = TracedConfig
    sys.exit(train.main(sys.argv[2:]))
