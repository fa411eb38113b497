"""Draws docs/page_*.png: the operator's page in Chromium, on a desktop and on a phone, light and dark.

python docs/make_page_pictures.py [CHROMIUM]
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from envs.expert import PickCubeExpert
from hil_rllib.collect.pacing import claim_priority
from hil_rllib.devices import make_device
from hil_rllib.wrappers import InputsControlWrapper

HERE = Path(__file__).parent
VIEWS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 960}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "has_touch": True,
        "is_mobile": True,
    },
}
RUN_STEPS = 900  # of the made-up curves beside the cameras


def news(steps: int) -> dict[str, float]:
    """What a learner would report after so many steps; curves as those of `panda_sac_random.yaml` look."""
    done = steps / RUN_STEPS
    return {
        "env_steps": steps,
        "episodes": round(steps / 20),
        "success_rate": min(1.0, 0.25 + 0.85 * done**0.7 + 0.06 * np.sin(steps / 37)),
        "intervention_rate": max(0.0, 0.42 * (1 - done) ** 1.5 + 0.03 * np.sin(steps / 23)),
        "updates_per_s": 41.3,
        "env_steps_per_s": 10.0,
        "online_ring": steps,
        "demo_ring": 620 + steps / 12,
        "human_seconds": 26 * done**0.5,
        "greedy_success": 0.95,
    }


def opened(browser: Browser, url: str, **view: Any) -> Page:
    page = browser.new_context(**view).new_page()
    page.goto(url)
    page.wait_for_selector("body[data-link=drive]")
    return page


def act(env: InputsControlWrapper, page: Page) -> None:
    """The expert reaches for the cube as a policy would, then a person takes over from the page."""
    env.reset(seed=3)
    expert = PickCubeExpert(env)
    for step in range(17):
        env.step(expert.action())
        if step == 9:
            page.keyboard.down("ArrowLeft")
        if step == 12:
            page.keyboard.up("ArrowLeft")
            page.keyboard.down("ArrowUp")
    page.wait_for_timeout(300)


def main() -> None:
    chromium = sys.argv[1] if len(sys.argv) > 1 else shutil.which("chromium")
    env = gymnasium.make("hil/PandaPickCube-v0", image_obs=True, random_block_position=True)
    device: Any = make_device("browser", port=0)
    inputs = InputsControlWrapper(env, use_gripper=True, device=device, hz=10.0)
    for steps in range(20, RUN_STEPS, 6):
        device.share(news(steps))
        time.sleep(0.002)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        claim_priority()  # after the browser has started: it is for the env alone
        for name, view in VIEWS.items():
            for scheme in ("light", "dark"):
                page = opened(browser, device.url, color_scheme=scheme, **view)
                act(inputs, page)
                file = HERE / f"page_{name}_{scheme}.png"
                page.screenshot(path=file)
                Image.open(file).convert("RGB").quantize(256, kmeans=1).save(
                    file, optimize=True
                )  # a third of the size
                page.context.close()
        browser.close()
    inputs.close()


if __name__ == "__main__":
    main()
