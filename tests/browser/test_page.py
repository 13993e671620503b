"""The page in a browser, against a real service: every scenario also fails on a call to another host or an error."""

from __future__ import annotations

import base64
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tests.browser.served import run_to_its_end, serving

from muybridge.video import read_request, read_video

pytestmark = pytest.mark.slow

STEPS_TO_CANCEL = 400
"""So many that nobody waits for the end."""


def draft_of(page: Any) -> dict[str, Any]:
    return page.evaluate("JSON.parse(localStorage.getItem('muybridge.draft')).document")


def pick(page: Any, button: str, *files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click(button)
    chooser.value.set_files([str(file) for file in files])


def sent(page: Any) -> tuple[dict[str, Any], str]:
    """Press Generate; gives the request that was sent, and the id of the video."""
    with page.expect_response(lambda answer: is_creation(answer.request)) as answer:
        page.click("#generate")
    return answer.value.request.post_data_json["request"], answer.value.json()["id"]


def is_creation(request: Any) -> bool:
    return request.method == "POST" and request.url.endswith("/v1/videos")


def until(page: Any, expression: str, timeout: float = 30_000) -> None:
    """Wait until an expression holds; as a function, for the page lets no text be evaluated."""
    page.wait_for_function(f"() => {expression}", timeout=timeout)


def card(video: str) -> str:
    return f'#gallery [data-id="{video}"]'


def unfold(page: Any, *names: str) -> None:
    for name in names:
        if not page.locator(f"#fold-{name}").evaluate("each => each.open"):
            page.click(f"#fold-{name} > summary")


def has_no_sideways_scrolling(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def two_videos(service: Any) -> list[str]:
    """Finished videos."""
    service.clear()
    videos = [service.ask("a red circle moving left"), service.ask("a blue heart spinning", seed=8)]
    for video in videos:
        assert service.wait(video)["status"] == "completed"
    return videos


def test_a_video_is_made_watched_through_a_reload_and_used_again(pages: Any, service: Any, tmp_path: Path) -> None:
    page = pages()
    page.fill("#prompt", "a red circle moving left")
    unfold(page, "sampling")
    page.fill("#steps", "16")
    request, video = sent(page)
    assert request["sampling"]["num_inference_steps"] == 16
    page.wait_for_selector("#running .job progress")
    until(page, "document.querySelector('#running .job .said')?.textContent.includes('Step')", 180_000)

    page.reload()  # in the middle of it
    page.wait_for_selector("html[data-ready]")
    assert page.input_value("#prompt") == "a red circle moving left"
    page.wait_for_selector("#running .job")
    page.wait_for_selector(f"{card(video)} video", timeout=180_000)
    page.wait_for_selector("#running .job", state="detached")
    made = service.call("GET", f"/v1/videos/{video}")
    assert made["seed"] == request["sampling"]["seed"]

    page.click(f"{card(video)} .open")
    until(page, "document.querySelector('#viewer video').videoWidth === 64")
    for name in ("mp4", "gif", "webp"):
        with page.expect_download() as download:
            page.click(f"#viewer a:has-text('{name}')")
        file = tmp_path / f"made.{name}"
        download.value.save_as(file)
        assert len(read_video(file).frames) == 16
        assert (read_request(file) or {})["prompt"] == "a red circle moving left"

    page.fill("#prompt", "something else", force=True)
    page.click("#viewer button:has-text('Use these settings')")
    assert page.input_value("#prompt") == "a red circle moving left"
    assert draft_of(page)["sampling"]["seed"] == made["seed"]
    assert page.get_attribute("#lock", "aria-pressed") == "true"

    page.evaluate("document.querySelector('#clear').click()")
    drop(page, "body", [tmp_path / "made.gif"])
    until(page, "document.querySelector('#prompt').value === 'a red circle moving left'")
    assert draft_of(page)["sampling"]["seed"] == made["seed"]


def drop(page: Any, place: str, files: list[Path]) -> None:
    kinds = {".gif": "image/gif", ".png": "image/png", ".mp4": "video/mp4", ".webp": "image/webp"}
    given = [
        {"name": file.name, "type": kinds[file.suffix], "data": base64.b64encode(file.read_bytes()).decode()}
        for file in files
    ]
    page.evaluate(
        """([place, given]) => {
          const data = new DataTransfer();
          for (const each of given) {
            const bytes = Uint8Array.from(atob(each.data), (letter) => letter.charCodeAt(0));
            data.items.add(new File([bytes], each.name, { type: each.type }));
          }
          for (const name of ["dragenter", "dragover", "drop"]) {
            const event = new DragEvent(name, { bubbles: true, cancelable: true, dataTransfer: data });
            document.querySelector(place).dispatchEvent(event);
          }
        }""",
        [place, given],
    )


def test_the_page_makes_what_the_command_line_makes(pages: Any, service: Any, tmp_path: Path) -> None:
    page = pages()
    page.fill("#prompt", "a blue heart spinning")
    unfold(page, "sampling")
    page.fill("#steps", "2")
    page.fill("#seed", "31")
    _, video = sent(page)
    assert service.wait(video)["status"] == "completed"
    by_page, by_call, by_command = (tmp_path / f"{name}.mp4" for name in ("page", "call", "command"))
    by_page.write_bytes(service.content(video))
    other = service.ask("a blue heart spinning", seed=31)
    assert service.wait(other)["status"] == "completed"
    by_call.write_bytes(service.content(other))
    run_to_its_end("generate", "a blue heart spinning", "--steps", "2", "--seed", "31", "-o", str(by_command))

    frames = read_video(by_page).frames
    assert (frames == read_video(by_call).frames).all()
    assert (frames == read_video(by_command).frames).all()


def test_pictures_go_to_their_frames(pages: Any, service: Any, pictures: list[Path]) -> None:
    page = pages()
    page.fill("#prompt", "a red circle moving right")
    pick(page, "#slot-start .add", pictures[0])
    pick(page, "#slot-end .add", pictures[2])
    page.wait_for_selector("#slot-end.filled")
    pick(page, "#slot-frame .add", pictures[1])
    page.wait_for_selector('#timeline [data-frame="8"]')
    page.focus('#timeline [data-frame="8"]')
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    page.wait_for_selector('#timeline [data-frame="6"]:focus')
    page.click('#ratios label:has-text("Picture")')
    (keyframes,) = draft_of(page)["conditions"]
    assert sorted(keyframes["pictures"], key=int) == ["-1", "0", "6"]
    assert draft_of(page)["shape"]["fit"] == 64
    page.click('#ratios label:has-text("Own")')
    page.focus('#timeline [data-frame="6"]')
    page.keyboard.press("Delete")
    until(page, "document.querySelectorAll('#timeline .handle').length === 2")
    unfold(page, "sampling")
    page.fill("#steps", "2")
    request, video = sent(page)
    (keyframes,) = request["conditions"]
    assert sorted(keyframes["pictures"]) == ["-1", "0"]
    page.wait_for_selector(f'#queue-section [data-id="{video}"] .shot img')
    assert service.wait(video)["status"] == "completed"

    page.click("#clear")
    page.fill("#prompt", "a circle")
    drop(page, "#slot-start", pictures)
    page.wait_for_selector("#batch .thumb:nth-child(2)")
    unfold(page, "sampling")
    page.fill("#steps", "1")
    assert page.inner_text("#generate") == "Generate 3 videos"
    bodies: list[Any] = []
    page.on("request", lambda call: bodies.append(call.post_data_json) if is_creation(call) else None)
    page.click("#generate")
    until(page, "document.querySelector('#toast').textContent.includes('3 videos')")
    starts = {body["request"]["conditions"][0]["pictures"]["0"] for body in bodies}
    assert len(starts) == 3
    for job in service.call("GET", "/v1/videos?status=queued")["data"]:
        service.call("POST", f"/v1/videos/{job['id']}/cancel")


def test_a_model_without_a_network_for_pictures_takes_none(pages: Any, pictures: list[Path]) -> None:
    page = pages()

    def without_networks(route: Any) -> None:
        answer = route.fetch()
        told = answer.json()
        told["data"] = [{**each, "networks": []} for each in told["data"]]
        route.fulfill(response=answer, json=told)

    until(page, "!document.querySelector('#slot-start .add').disabled")
    page.route("**/v1/models", without_networks)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector("#no-pictures:visible")
    disabled = "#slots .add:disabled"
    assert page.locator(disabled).count() == 3
    drop(page, "#slot-start", pictures[:1])
    until(page, "document.querySelector('#toast').textContent.includes('needs a network')")
    assert "conditions" not in draft_of(page)
    page.select_option("#model", "demo/easyanimate")
    until(page, f"!document.querySelector('{disabled}')")
    assert page.locator("#no-pictures").is_hidden()
    page.select_option("#model", "demo/animatediff")
    until(page, f"document.querySelectorAll('{disabled}').length === 3")


def test_a_video_is_made_anew_where_it_is_painted(
    pages: Any, service: Any, two_videos: list[str], tmp_path: Path
) -> None:
    page = pages()
    source = tmp_path / "source.mp4"
    with page.expect_download() as download:
        page.click(f"{card(two_videos[0])} .open")
        page.click("#viewer a:has-text('mp4')")
    download.value.save_as(source)
    page.keyboard.press("Escape")
    page.fill("#prompt", "a green square")
    pick(page, "#slot-video .add", source)
    page.wait_for_selector("#paint")
    page.click("#paint")
    box = page.locator(".mask-stage canvas").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"], steps=6)
    page.mouse.up()
    page.focus(".mask-stage canvas")
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    page.click("#mask button:has-text('Use this mask')")
    page.wait_for_selector("#mask", state="hidden")
    page.focus("#source-strength")
    page.keyboard.press("ArrowLeft")
    conditions = {each["kind"]: each for each in draft_of(page)["conditions"]}
    assert 0 < conditions["source"]["strength"] < 1
    assert conditions["mask"]["mask"].startswith("upload_")
    page.click("#source button:has-text('Remove mask')")
    assert [each["kind"] for each in draft_of(page)["conditions"]] == ["source"]
    unfold(page, "sampling")
    page.fill("#steps", "4")
    _, video = sent(page)
    assert service.wait(video)["status"] == "completed"


def test_the_queue_is_moved_edited_copied_and_cancelled_and_seen_elsewhere(pages: Any, service: Any) -> None:
    running = service.ask("a red circle moving left", num_inference_steps=STEPS_TO_CANCEL)
    waiting = [service.ask(f"a blue heart number {number}", num_inference_steps=1) for number in range(3)]
    page, elsewhere = pages(), pages(390, 844)

    def order(where: Any) -> list[str]:
        return where.evaluate("[...document.querySelectorAll('#queued .job')].map((each) => each.dataset.id)")

    page.wait_for_selector(f'#running [data-id="{running}"]', timeout=60_000)
    until(page, "document.querySelectorAll('#queued .job').length === 3")
    page.click(f'#queued [data-id="{waiting[2]}"] [aria-label="Earlier"]')
    until(page, f"document.querySelectorAll('#queued .job')[1].dataset.id === '{waiting[2]}'")
    page.drag_and_drop(f'#queued [data-id="{waiting[2]}"] .shot', f'#queued [data-id="{waiting[0]}"] .shot')
    until(page, f"document.querySelectorAll('#queued .job')[0].dataset.id === '{waiting[2]}'")
    wanted = [waiting[2], waiting[0], waiting[1]]
    assert [job["id"] for job in sorted_queue(service)] == wanted
    elsewhere.reload()
    elsewhere.wait_for_selector("html[data-ready]")
    until(elsewhere, "document.querySelectorAll('#queued .job').length === 3")
    assert order(elsewhere) == wanted
    assert has_no_sideways_scrolling(elsewhere)

    page.click(f'#queued [data-id="{waiting[0]}"] [aria-label="Duplicate"]')
    until(elsewhere, "document.querySelectorAll('#queued .job').length === 4")
    page.click(f'#queued [data-id="{waiting[1]}"] [aria-label="Back into the form"]')
    until(page, "document.querySelector('#prompt').value === 'a blue heart number 1'")
    until(elsewhere, "document.querySelectorAll('#queued .job').length === 3")

    until(page, "document.querySelector('#running .said').textContent.includes('left')", timeout=60_000)
    page.wait_for_selector("#running .shot img")  # the preview
    began = time.monotonic()
    page.click(f'#running [data-id="{running}"] button:has-text("Cancel")')
    page.wait_for_selector(f"{card(running)}.cancelled")
    assert time.monotonic() - began < 10
    assert service.call("GET", f"/v1/videos/{running}")["error"]["code"] == "cancelled"
    for job in sorted_queue(service):
        service.call("POST", f"/v1/videos/{job['id']}/cancel")


def sorted_queue(service: Any) -> list[dict[str, Any]]:
    return sorted(
        service.call("GET", "/v1/videos?status=queued&limit=100")["data"], key=lambda job: job["queue_position"]
    )


def test_what_is_refused_is_said_at_its_field(pages: Any) -> None:
    page = pages()
    page.click("#generate")
    page.wait_for_selector('#prompt[aria-invalid="true"]')
    assert page.evaluate("document.activeElement.id") == "prompt"
    assert "prompt" in page.inner_text("#error-prompt")
    page.fill("#prompt", "a red circle")
    assert page.locator(".field-error:visible").count() == 0

    unfold(page, "sampling")
    page.fill("#steps", "0")
    page.click("#fold-sampling > summary")
    page.click("#generate")
    page.wait_for_selector('#steps[aria-invalid="true"]')
    assert "at least 1" in page.inner_text(".field:has(> .row > #steps) .field-error")
    page.fill("#steps", "")
    page.click('#ratios label:has-text("Exact")')
    page.fill("#width", "0")
    page.click("#generate")
    page.wait_for_selector(".field-error:visible")
    assert page.get_attribute("#width", "aria-invalid") == "true"
    assert "at least 1" in page.locator(".field-error:visible").inner_text()


def test_videos_are_found_played_and_compared_in_step(pages: Any, two_videos: list[str]) -> None:
    page = pages(reduced_motion="no-preference")
    page.wait_for_selector(card(two_videos[1]))
    until(page, "[...document.querySelectorAll('#gallery video')].some((each) => each.currentTime > 0)")
    page.fill("#filter-text", "heart")
    page.wait_for_selector(card(two_videos[0]), state="detached")
    page.fill("#filter-text", "")
    page.select_option("#filter-status", "failed")
    page.wait_for_selector(card(two_videos[1]), state="detached")
    page.select_option("#filter-status", "completed")
    page.wait_for_selector(card(two_videos[0]))
    page.select_option("#filter-model", "demo/easyanimate")
    page.wait_for_selector(card(two_videos[0]), state="detached")
    page.select_option("#filter-model", "")
    page.wait_for_selector(card(two_videos[0]))

    for video in two_videos:
        page.locator(f"{card(video)} .pick input").check(force=True)
    page.click("#compare-open")
    until(page, "[...document.querySelectorAll('#compare video')].every((each) => each.readyState >= 3)")
    page.wait_for_timeout(600)
    page.click('#compare [aria-label="One frame on"]')  # pauses, too
    until(page, "[...document.querySelectorAll('#compare video')].every((each) => each.paused && !each.seeking)")
    moments = page.evaluate("[...document.querySelectorAll('#compare video')].map((each) => each.currentTime)")
    assert moments[0] == moments[1]
    assert "a blue heart spinning" in page.inner_text("#compare .differences")


def test_every_setting_of_the_schema_has_a_field(pages: Any, service: Any) -> None:
    page = pages()
    unfold(page, "advanced")
    page.wait_for_selector('#advanced [data-path="sampling.eta"]')
    there = set(
        page.evaluate("[...document.querySelectorAll('#composer [data-path]')].map((each) => each.dataset.path)")
    )
    schema = service.call("GET", "/v1/schema")
    definitions = schema["request"]["$defs"]
    missing = [
        f"{name}.{inner}"
        for name, each in schema["request"]["properties"].items()
        for inner in definitions.get(each.get("$ref", "").rpartition("/")[2], {}).get("properties", ())
        if f"{name}.{inner}" not in there | {"model.device", "model.memory"}
    ]
    assert missing == []
    page.fill('#advanced [data-path="sampling.eta"]', "0.5")
    page.check("#advanced label:has-text('Windows') input")
    page.select_option('#advanced [data-path="sampling.windows.schedule"]', "looped")
    page.fill("#prompt", "a red circle")
    assert draft_of(page)["sampling"] == {"eta": 0.5, "windows": {"schedule": "looped"}}
    unfold(page, "style")
    page.select_option("#add-lora", "ink")
    page.focus("#lora-0")
    page.keyboard.press("ArrowRight")
    page.select_option("#adapter", "gentle")
    assert draft_of(page)["model"] == {"loras": {"ink": 0.85}, "motion_adapter": "gentle"}
    page.select_option("#add-lora", "demo/animatediff-4-steps")
    assert draft_of(page)["model"]["loras"] == {"ink": 0.85, "demo/animatediff-4-steps": 1}
    sampling = {"num_inference_steps": 4, "guidance_scale": 1, "scheduler": "ddim"}
    assert draft_of(page)["sampling"].items() >= sampling.items()


def test_a_long_video_is_made_in_segments_of_which_one_is_made_anew(pages: Any, service: Any) -> None:
    page = pages()
    page.fill("#prompt", "a red circle moving left")
    page.select_option("#model", "demo/easyanimate")
    unfold(page, "sampling", "long")
    page.fill("#steps", "1")
    page.check("#long")
    page.fill("#segment-frames", "16")
    page.fill("#frames", "24")
    assert page.inner_text("#segments-said") == "Segments: 2"
    request, video = sent(page)
    assert (request["segments"], request["shape"]) == ({"frames": 16}, {"num_frames": 24})
    assert service.wait(video)["status"] == "completed"
    page.click(f"{card(video)} .open")
    page.click('#viewer [aria-label="Segment 2"]')
    with page.expect_response("**/redo") as answer:
        page.click("#viewer button:has-text('Redo these')")
    assert answer.value.request.post_data_json == {"segments": [1], "following": False}
    assert service.wait(answer.value.json()["id"])["status"] == "completed"


@pytest.mark.usefixtures("two_videos")
def test_everything_can_be_done_by_keyboard(pages: Any) -> None:
    page = pages()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    tab_until(page, "document.activeElement.id === 'prompt'")
    page.keyboard.type("a red circle moving up")
    tab_until(page, "document.activeElement.matches('#fold-sampling summary')")
    page.keyboard.press("Enter")
    tab_until(page, "document.activeElement.id === 'steps'")
    page.keyboard.type("1")
    tab_until(page, "document.activeElement.id === 'generate'")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#toast').textContent === 'In the queue'")
    tab_until(page, "document.activeElement.matches('#gallery .card:not(.failed) .open')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    assert page.evaluate("document.activeElement.matches('.card .open')")


def tab_until(page: Any, condition: str, most: int = 120) -> None:
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(condition):
            return
    pytest.fail(f"Tab does not lead to where {condition}")


def test_chinese_on_a_phone(pages: Any, two_videos: list[str], pictures: list[Path]) -> None:
    page = pages(390, 844, locale="zh-CN", color_scheme="dark")
    assert page.inner_text("#generate") == "生成"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    pick(page, "#slot-start .add", pictures[0])
    page.wait_for_selector("#timeline .handle")
    unfold(page, "style", "sampling", "long", "advanced")
    page.wait_for_selector("#advanced .field")
    assert has_no_sideways_scrolling(page)
    page.wait_for_selector(card(two_videos[0]))
    page.click(f"{card(two_videos[0])} .open")
    assert has_no_sideways_scrolling(page)
    page.keyboard.press("Escape")
    page.evaluate("window.scrollTo(0, 0)")
    page.select_option("#language", "en")
    until(page, "document.querySelector('#generate span')?.textContent === 'Generate'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_anybody(
    pages: Any, two_videos: list[str], pictures: list[Path], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = pages(color_scheme=scheme)
    page.wait_for_selector(card(two_videos[0]))
    pick(page, "#slot-start .add", pictures[0])
    page.wait_for_selector("#timeline .handle")
    unfold(page, "style", "sampling", "long", "advanced")
    page.wait_for_selector("#advanced .field")
    found = list(serious(axe, page))
    page.click(f"{card(two_videos[0])} .open")
    found += serious(axe, page)
    page.keyboard.press("Escape")
    for video in two_videos:
        page.locator(f"{card(video)} .pick input").check(force=True)
    page.click("#compare-open")
    found += serious(axe, page)
    assert found == []


def serious(axe: Any, page: Any) -> list[str]:
    result = axe.Axe().run(page).response
    return [
        f"{each['id']}: {node['html'][:160]} {node.get('failureSummary', '')}"
        for each in result["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:3]
    ]


def test_the_page_is_small(pages: Any) -> None:
    page = pages()
    times = page.evaluate(
        """() => {
          const loads = performance.getEntriesByType("resource").filter((each) => !each.name.includes("/v1/"));
          return { count: loads.length + 1, bytes: loads.reduce((sum, each) => sum + each.encodedBodySize, 0) };
        }"""
    )
    assert times["count"] <= 32
    assert times["bytes"] <= 160_000
    csp = page.evaluate("fetch('').then((answer) => answer.headers.get('content-security-policy'))")
    assert re.search(r"default-src 'self'", csp)


def test_the_page_asks_for_a_token_once(browser: Any, tmp_path: Path) -> None:
    token = "a-token-of-twenty-letters"
    with serving(tmp_path, "--workers", "0", MUYBRIDGE_TOKEN=token) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.fill("#token-input", "a-wrong-token-of-letters")
        page.click("#token button")
        page.wait_for_selector("#token-error:visible")
        page.fill("#token-input", token)
        page.click("#token button")
        page.wait_for_selector("html[data-ready]")
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert not page.is_visible("#token")
        assert token not in page.evaluate("JSON.stringify({...localStorage}) + document.cookie")
        context.close()


@pytest.mark.skipif(
    "MUYBRIDGE_PAGE_PICTURE" not in os.environ, reason="draws docs/images/page.png where it is asked to"
)
def test_picture_for_the_readme(pages: Any, service: Any) -> None:
    service.clear()
    wishes = ("red circle moving left", "blue heart spinning", "green square growing")
    made = [service.ask(f"a {wish}", num_inference_steps=12, seed=number) for number, wish in enumerate(wishes, 1)]
    for video in made:
        service.wait(video, 600)
    service.ask("a purple ring shrinking", num_inference_steps=40, seed=5)
    service.ask("an orange circle moving down", num_inference_steps=12, seed=6)
    page = pages(1280, 860, device_scale_factor=2, reduced_motion="no-preference")
    page.fill("#prompt", "a yellow triangle moving up")
    until(page, "/^Step 2\\d/.test(document.querySelector('#running .said')?.textContent)", timeout=180_000)
    page.wait_for_selector("#running .shot img")
    page.evaluate("document.activeElement.blur()")
    page.screenshot(path=os.environ["MUYBRIDGE_PAGE_PICTURE"])
