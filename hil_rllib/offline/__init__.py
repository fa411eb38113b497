"""RLlib's offline algorithms on LeRobot data: `run.algorithm` bc, iql, act, and dagger, which goes on."""
