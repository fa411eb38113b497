"""The page in a real browser: real keys, a scripted gamepad, touch; the arm and the episode follow."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time

import psutil
import pytest
from operator_rig import Rig, assert_drives

from hil_rllib.contract import IDLE
from hil_rllib.devices import make_device
from hil_rllib.devices.browser import device as browser
from hil_rllib.devices.controls import CONTROLS, KEY_CODES, PAD_STICKS, STANDARD_AXES, STANDARD_BUTTONS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
SCRIPTED_GAMEPAD = """
window.scripted = { connected: false, id: "Scripted pad", mapping: "standard", axes: [0, 0, 0, 0] };
window.scripted.buttons = [];
for (let i = 0; i < 16; i++) window.scripted.buttons.push({ pressed: false });
navigator.getGamepads = () => [null, window.scripted];
"""


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def rig(vector_env):
    made = Rig(vector_env, make_device("browser", port=0))
    made.connector._clock = time.monotonic
    yield made
    made.connector._close()
    made.env._on_close.clear()
    made.env._on_step.clear()


@pytest.fixture
def patient(monkeypatch):
    """No dead man while a busy machine keeps the test waiting."""
    monkeypatch.setattr(browser, "DEAD_MAN_S", 10.0)


@pytest.fixture
def page(chromium, rig):
    """The operator's page, opened with the token; a gamepad that scripts can press."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    errors = []
    opened.on("pageerror", lambda error: errors.append(error))
    opened.add_init_script(SCRIPTED_GAMEPAD)
    opened.goto(the_device(rig).url)
    opened.wait_for_selector("body[data-link=drive]")
    yield opened
    context.close()
    assert errors == []


def the_device(rig):
    return rig.connector._guard.device


def settled(rig, *names, deflected=False):
    """Wait until the runner knows what is held, and that a stick or touch pad is fully deflected, or none."""
    end, device = time.monotonic() + 10, the_device(rig)

    def deflection():  # a finger that has just come down deflects a little
        return max(map(abs, device._keys._deflection + device._pad._deflection))

    while device._keys.down() | device._pad.down() != set(names) or not (
        deflection() > 0.9 if deflected else deflection() == 0
    ):
        assert time.monotonic() < end, f"{names} did not arrive"
        time.sleep(0.01)
        device._receive()
    now = time.monotonic()
    rig.connector._clock = lambda: now + rig.now


def renderers():
    """The processes behind this one's tabs."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            found |= {child.pid} if "--type=renderer" in " ".join(child.cmdline()) else set()
    return found


def drive(rig, press, release, controls):
    """Each control does what its name says. press: returns what is held then, and if a stick moves."""

    def pressed(control):
        names, deflected = press(control)
        settled(rig, *names, deflected=deflected)

    def released(control):
        release(control)
        settled(rig)

    for control in controls:
        assert_drives(rig, control, pressed, released)


def test_every_key_of_the_page(rig, page, patient):
    def key(control):
        return KEY_CODES.get(control.key, control.key)

    def press(control):
        page.keyboard.down(key(control))
        return [control.name], False

    assert page.url.endswith("/")  # the token has left the address
    drive(rig, press, lambda control: page.keyboard.up(key(control)), [c for c in CONTROLS if c.key])
    page.keyboard.down("ArrowUp")
    settled(rig, "+x")
    page.evaluate("dispatchEvent(new Event('blur'))")  # another window has the focus: a release will not come
    settled(rig)


def test_r_and_l_are_where_they_type_that_or_at_their_places(rig, page, patient):
    keyboard = page.context.new_cdp_session(page)  # playwright's own types on a US layout only

    def key(kind, place, typed):
        keyboard.send("Input.dispatchKeyEvent", {"type": kind, "code": place, "key": typed})

    for place, typed, name in (
        ("KeyR", "к", "rerecord"),  # Russian
        ("KeyL", "Д", "label"),  # Russian, with Shift
        ("KeyR", "ी", "rerecord"),  # Hindi: no letter but a mark
        ("KeyO", "r", "rerecord"),  # Dvorak
        ("KeyP", "L", "label"),
        ("KeyR", "p", None),
        ("KeyL", "n", None),
    ):
        key("keyDown", place, typed)
        key("keyDown", "Space", " ")
        settled(rig, "toggle", *([name] if name else []))
        key("keyUp", place, typed)
        key("keyUp", "Space", " ")
        settled(rig)


def test_cmd_lets_go_of_all_keys_for_macos_tells_of_no_release_under_it(rig, page, patient):
    def comes_to_nothing(key):
        the_device(rig).read()  # what was pressed before
        page.keyboard.down(key)
        page.wait_for_timeout(200)
        assert the_device(rig).read() == IDLE

    page.keyboard.down("ArrowUp")
    settled(rig, "+x")
    page.keyboard.down("Meta")  # ↑ comes up now, and nobody tells
    settled(rig)
    comes_to_nothing("ArrowLeft")
    page.keyboard.up("Meta")
    while page.evaluate("document.activeElement.dataset.hold") != "label":
        page.keyboard.press("Tab")
    page.keyboard.down("Space")  # the button's
    settled(rig, "label")
    page.keyboard.down("Meta")
    settled(rig)
    comes_to_nothing("Enter")


def test_cmd_coming_up_lets_go_of_keys_too(rig, page, patient):
    page.keyboard.down("ArrowUp")
    settled(rig, "+x")
    page.evaluate("dispatchEvent(new KeyboardEvent('keyup', { key: 'Meta', code: 'MetaLeft' }))")  # alone
    settled(rig)


def test_every_button_and_stick_of_a_gamepad(rig, page, patient):
    page.evaluate("scripted.connected = true")

    def put(control, on):
        if control.pad in STANDARD_BUTTONS:
            page.evaluate(f"scripted.buttons[{STANDARD_BUTTONS[control.pad]}].pressed = {str(on).lower()}")
            return
        axis, sign = PAD_STICKS[control.pad]  # ours count up and left as positive, browsers down and right
        page.evaluate(f"scripted.axes[{STANDARD_AXES[axis]}] = {-sign if on else 0}")

    rb = STANDARD_BUTTONS["rb"]

    def press(control):
        names = [control.name]
        if control.pad in PAD_STICKS or control.name in ("open", "close"):
            page.evaluate(f"scripted.buttons[{rb}].pressed = true")  # the sticks move only while in charge
            names = ["intervene", *names]
        put(control, True)
        if control.pad in PAD_STICKS:  # a stick is no control that is held: it is just elsewhere
            return ["intervene"], True
        return names, False

    def release(control):
        put(control, False)
        page.evaluate(f"scripted.buttons[{rb}].pressed = false")

    drive(rig, press, release, CONTROLS)


def test_a_gamepad_of_unknown_layout_is_named_and_moves_nothing(rig, page, patient):
    page.evaluate("Object.assign(scripted, { connected: true, mapping: '' })")
    page.evaluate("scripted.buttons.forEach((button) => (button.pressed = true)); scripted.axes.fill(1)")
    page.evaluate("dispatchEvent(new Event('gamepadconnected'))")
    assert "does not know the buttons of Scripted pad: not used" in page.inner_text("#gamepad")
    page.keyboard.down("Space")  # the next report, which would hold the gamepad's part too
    settled(rig, "toggle")
    page.keyboard.up("Space")
    settled(rig)
    page.evaluate("scripted.mapping = 'standard'; dispatchEvent(new Event('gamepadconnected'))")
    assert page.inner_text("#gamepad") == "Gamepad: Scripted pad"


def test_every_button_on_the_page(rig, page, patient):
    names = [element.get_attribute("data-hold") for element in page.query_selector_all("[data-hold]")]
    assert set(names) == {c.name for c in CONTROLS if c.name[1:] not in ("x", "y", "z")}

    def press(control):
        page.hover(f"[data-hold={control.name}]")
        page.mouse.down()
        return [control.name], False

    drive(rig, press, lambda control: page.mouse.up(), [c for c in CONTROLS if c.name in names])


def test_buttons_can_be_pressed_with_the_keyboard_alone(rig, page, patient):
    while page.evaluate("document.activeElement.dataset.hold") != "success":
        page.keyboard.press("Tab")
    page.keyboard.down("Space")  # the button's, not the toggle
    settled(rig, "success")
    page.keyboard.up("Space")
    settled(rig)


def test_a_key_let_go_after_the_focus_has_moved_moves_the_arm_no_more(rig, page, patient):
    page.keyboard.down("ArrowUp")
    settled(rig, "+x")
    page.keyboard.press("Tab")
    page.keyboard.up("ArrowUp")
    settled(rig)
    while page.evaluate("document.activeElement.dataset.hold") != "intervene":
        page.keyboard.press("Tab")
    page.keyboard.down("Space")
    settled(rig, "intervene")
    page.keyboard.press("Tab")  # Space comes up over another button
    settled(rig)


def test_a_click_leaves_the_keys_to_the_arm(rig, page, patient):
    for button in ("#seat", "#seat", "#help summary"):  # give the controls back, take them, look up the keys
        page.click(button)
    page.wait_for_selector("body[data-link=drive]")
    for key, name in (("ArrowUp", "+x"), ("Space", "toggle")):
        page.keyboard.down(key)
        settled(rig, name)
        page.keyboard.up(key)
        settled(rig)
    assert page.get_attribute("body", "data-link") == "drive"


def test_somebody_who_asks_takes_no_key_from_the_driver(rig, page, patient):
    watching = page.context.new_page()
    watching.goto(the_device(rig).url.split("?")[0])
    watching.wait_for_selector("body[data-link=watch]")
    page.bring_to_front()
    page.keyboard.down("ArrowUp")
    settled(rig, "+x")
    watching.click("#seat")
    page.wait_for_selector("#question[open]")
    page.keyboard.up("ArrowUp")
    settled(rig)
    page.keyboard.down("Enter")  # ends the episode; it answers nobody
    settled(rig, "success")
    page.keyboard.up("Enter")
    settled(rig)
    assert page.get_attribute("body", "data-link") == "drive"


def test_touch_pads(rig, page, patient):
    grips = {"+x": ("#pad", 0, -1), "-x": ("#pad", 0, 1), "+y": ("#pad", -1, 0), "-y": ("#pad", 1, 0)}
    grips |= {"+z": ("#lift", 0, -1), "-z": ("#lift", 0, 1)}

    def press(control):
        pad, right, down = grips[control.name]
        box = page.locator(pad).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 80 * right, y + 80 * down)  # farther than the knob goes
        return [], True

    drive(
        rig,
        press,
        lambda control: page.mouse.up(),
        [c for c in CONTROLS if c.name in grips],
    )


def test_fingers_on_a_quick_screen_do_not_say_too_much(rig, page, patient):
    page.evaluate("""() => {
      const touch = (id, kind, number, up) => {
        const pad = document.getElementById(id), box = pad.getBoundingClientRect();
        const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 - up };
        pad.setPointerCapture = () => {};  // of a finger that is none
        pad.dispatchEvent(new PointerEvent(kind, { pointerId: number, bubbles: true, ...at }));
      };
      const fingers = [["pad", 7], ["lift", 8]];
      for (const [id, number] of fingers) touch(id, "pointerdown", number, 0);
      let up = 0;
      setInterval(() => {
        up = (up + 1) % 90;
        for (const [id, number] of fingers) touch(id, "pointermove", number, up);
      }, 8);  // 120 Hz
    }""")
    page.wait_for_timeout(3000)
    assert page.get_attribute("body", "data-link") == "drive"
    the_device(rig)._receive()
    assert all(value > 0 for value in the_device(rig)._keys._deflection[::2])


def test_both_cameras_change_and_the_page_tells_what_happens(rig, page, patient):
    def pixels(camera):
        return page.evaluate(f"document.getElementById('camera-{camera}').toDataURL()")

    def steps(count):
        for _ in range(count):
            rig.step()
            page.wait_for_timeout(60)

    steps(3)
    page.wait_for_selector("#camera-front[width='256']", timeout=20_000)
    steps(3)
    page.wait_for_selector("#who:has-text('The policy acts')")
    before = pixels("front"), pixels("wrist")
    page.keyboard.down("ArrowLeft")
    settled(rig, "+y")
    steps(8)
    page.wait_for_selector("#who:has-text('You act')")
    assert page.get_attribute("body", "data-who") == "human"
    assert pixels("front") != before[0]
    assert pixels("wrist") != before[1]
    assert float(page.inner_text("#round-trip").split()[0]) < 1000
    assert page.inner_text("#latency").endswith(" ms")
    assert page.inner_text("#mode") == "hold to take over"
    assert page.locator("#timeline .human").count() == page.locator("#timeline .policy").count() == 1
    page.keyboard.up("ArrowLeft")
    page.keyboard.press("Enter")
    for _ in range(100):
        page.wait_for_timeout(30)
        if rig.step()[2][2]:
            break
    page.wait_for_selector("#outcomes .success")
    the_device(rig).share(
        {"env_steps": 120, "success_rate": 0.5, "intervention_rate": 0.25, "online_ring": 1234}
    )
    page.wait_for_selector("#run:not([hidden])")
    assert page.inner_text("#success-rate") == "50%"
    assert "1\u202f234" in page.inner_text("#tiles")


def test_the_controls_change_hands(rig, page, patient):
    watching = page.context.new_page()
    watching.goto(the_device(rig).url.split("?")[0])  # the cookie will do
    watching.wait_for_selector("body[data-link=watch]")
    page.keyboard.down("ArrowUp")  # not idle
    watching.click("#seat")
    page.click("#deny")
    watching.wait_for_selector("#seat:not([disabled])")
    watching.click("#seat")
    page.click("#accept")
    watching.wait_for_selector("body[data-link=drive]")
    page.wait_for_selector("body[data-link=watch]")
    watching.click("#seat")  # give them back
    watching.wait_for_selector("body[data-link=watch]")


def test_the_tab_is_killed_in_the_middle_of_an_intervention(rig, chromium):
    def kill():
        before = renderers()
        context = chromium.new_context()
        tab = context.new_page()
        tab.goto(the_device(rig).url)
        tab.wait_for_selector("body[data-link=drive]")
        tab.keyboard.down("ArrowUp")
        end = time.monotonic() + 10
        while not rig.step()[1]:
            assert time.monotonic() < end
            time.sleep(0.03)
        since = time.monotonic()
        for pid in renderers() - before:
            os.kill(pid, signal.SIGKILL)
        while rig.step()[1]:
            time.sleep(0.02)
        taken = time.monotonic() - since
        context.close()
        return taken

    assert browser.DEAD_MAN_S == 0.3
    assert min(kill() for _ in range(3)) < 0.4  # of three: this machine may be busy


def test_one_person_goes_from_robot_to_robot(rig, page, patient):
    other = make_device("browser", port=0, robot="operator_2")
    with other:
        other.start(rig.env)
        row = {"value": 0.7, "disagreement": 0.05, "stuck_s": 0.4, "by_hand": False, "suggested": False}
        robots = [
            {**row, "robot": "operator_1", "url": the_device(rig).url},
            {
                **row,
                "robot": "operator_2",
                "url": other.url,
                "value": None,
                "stuck_s": 12.3,
                "suggested": True,
            },
        ]
        the_device(rig).share({"robots": robots})
        page.wait_for_selector("#robots:not([hidden])")
        assert page.inner_text("#robots tbody tr:first-child").split()[:5] == [
            "operator_1",
            "0.70",
            "0.050",
            "0.4",
            "s",
        ]
        page.keyboard.down("ArrowUp")
        settled(rig, "+x")
        assert rig.step()[1]
        page.click("text=Help operator_2: no progress for 12 s")
        page.wait_for_selector("#name:has-text('operator_2')")
        page.wait_for_selector("body[data-link=drive]")
        settled(rig)  # the one it left is its policy's
        assert not rig.step()[1]
        other.share({"robots": robots})
        page.click("text=go there")
        page.wait_for_selector("#name:has-text('Operator')")
        page.wait_for_selector("body[data-link=drive]")
