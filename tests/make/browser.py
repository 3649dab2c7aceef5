"""The lab as its user sees it: JupyterLab in Chromium, without a screen.

Debian's own Chromium is driven with Playwright; nothing is downloaded.  Every step waits for what a user would
wait for, never for a time.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from playwright.sync_api import ConsoleMessage, Locator, Page, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WINDOW_WIDTH, WINDOW_HEIGHT = 1400, 1000
PATIENCE = 60_000.0  # milliseconds, for a lab in a container on a busy machine

LAB = "#jp-main-dock-panel"
LAUNCHER = ".jp-LauncherCard"
SPLASH = "#jupyterlab-splash"
LOGIN = "#password_input"
NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden)"
RENDERED = """outputs => outputs.every(
    output => output.childNodes.length || output.contentDocument?.body.childNodes.length
)"""
LOADED = "images => images.every(image => image.complete)"


class LabPage:
    """A browser window in which a user opens a lab and works in a new notebook.

    Use it in a ``with`` statement: at its end the notebook and its kernel are gone from the lab.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._url = ""
        self._token = ""
        self._kernel = ""
        self._cell: Locator | None = None

    def __enter__(self) -> Self:
        """Start the browser, or say which package the user has to install for it."""
        if not CHROMIUM.exists():
            raise FileNotFoundError(f"{CHROMIUM} is missing: install the Debian package chromium")
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            self._page = self._browser.new_page(viewport={"width": WINDOW_WIDTH, "height": WINDOW_HEIGHT})
        except BaseException:
            self._playwright.stop()
            raise
        self._page.set_default_timeout(PATIENCE)
        self._page.on("console", self._note_message)
        self._page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the window and leave the lab as the user found it."""
        try:
            self._remove_notebook()
        finally:
            self._browser.close()
            self._playwright.stop()

    def open(self, url: str, token: str = "") -> None:
        """Go to the lab's address, with the token if there is one, until the lab or its login is shown."""
        self._url, self._token = url, token
        # An earlier user's tabs would hide the launcher; reset leaves them closed.
        self._page.goto(f"{url}lab?reset&token={quote(token)}" if token else url)
        expect(self._page.locator(f"{LAUNCHER}, {LOGIN}").first).to_be_visible(timeout=PATIENCE)
        expect(self._page.locator(SPLASH)).to_be_hidden(timeout=PATIENCE)

    @property
    def lab_shown(self) -> bool:
        """Whether the user sees the lab."""
        return self._page.locator(LAB).is_visible()

    @property
    def login_shown(self) -> bool:
        """Whether the user is asked for the token."""
        return self._page.locator(LOGIN).is_visible()

    def kernels(self) -> list[str]:
        """The names of the kernels for which the launcher offers the user a notebook."""
        labels = self._kernel_labels()
        expect(labels.first).to_be_visible(timeout=PATIENCE)
        return [name.strip() for name in labels.all_inner_texts()]

    def new_notebook(self, kernel: str) -> None:
        """Click the launcher's card for the kernel with this name and wait for it to be ready."""
        self._kernel = kernel
        self._kernel_labels().get_by_text(kernel, exact=True).first.click()
        expect(self._page.locator(f"{NOTEBOOK} .jp-Notebook-cell")).to_have_count(1, timeout=PATIENCE)
        self._wait_until_idle()

    def run(self, code: str) -> str:
        """Type the code in the notebook's active cell, run it as a user does and read the output's text."""
        self.start(code)
        return self.finish()

    def start(self, code: str) -> None:
        """Type the code in the notebook's active cell and run it, without waiting for its end."""
        # Running a cell makes the next one active; JupyterLab may take those out of view from the page.
        active = self._page.locator(f"{NOTEBOOK} .jp-Notebook-cell.jp-mod-active")
        index = active.get_attribute("data-windowed-list-index")
        cell = self._page.locator(f'{NOTEBOOK} .jp-Notebook-cell[data-windowed-list-index="{index}"]')
        editor = cell.locator(".cm-content")
        editor.fill(code)
        editor.press("Shift+Enter")
        self._cell = cell

    def finish(self) -> str:
        """Wait until the cell that was started has run, and read the output's text."""
        assert self._cell is not None, "start a cell first"
        expect(self._cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"), timeout=PATIENCE)
        self._wait_until_idle()
        outputs = self._outputs()
        self._wait_for(outputs, RENDERED)
        return "\n".join(outputs.all_inner_texts()).strip()

    def wait_for(self, selector: str, text: str = "", frame: bool = False) -> None:
        """Wait until the user sees an element with the text below the last cell, or in a frame that is there."""
        assert self._cell is not None, "start a cell first"
        place = self._cell.frame_locator("iframe").first if frame else self._outputs()
        expect(place.locator(selector, has_text=text).first).to_be_visible(timeout=PATIENCE)

    def answer(self, words: str) -> None:
        """Type the words where the running cell asks for input."""
        box = self._outputs().locator(".jp-Stdin-input")
        box.fill(words)
        box.press("Enter")

    def interrupt(self) -> None:
        """Click the button that stops the running cell."""
        self._page.locator(f"{NOTEBOOK} [data-jp-item-name=interrupt]").click()

    def pictures(self) -> list[tuple[int, int]]:
        """The width and height of every picture that the last run put before the user's eyes."""
        images = self._outputs().locator("img")
        self._wait_for(images, LOADED)
        sizes = images.evaluate_all("images => images.map(image => [image.naturalWidth, image.naturalHeight])")
        return [(int(width), int(height)) for width, height in sizes]

    def exports(self) -> list[str]:
        """What the user finds in the menu File, Save and Export Notebook As."""
        self._page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^File$")).click()
        self._page.locator(".lm-Menu-itemLabel", has_text="Save and Export Notebook As").click()
        submenu = self._page.locator(".lm-Menu").nth(1).locator(".lm-Menu-itemLabel")
        expect(submenu.first).to_be_visible(timeout=PATIENCE)
        names = [name.strip() for name in submenu.all_inner_texts()]
        self._page.keyboard.press("Escape")
        self._page.keyboard.press("Escape")
        expect(self._page.locator(".lm-Menu")).to_have_count(0, timeout=PATIENCE)
        return [name for name in names if name]

    def screenshot(self, path: Path) -> None:
        """Keep what the user sees as a picture, in a folder that is made if need be."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._page.screenshot(path=path)

    @property
    def page(self) -> Page:
        """Playwright's page, for what a user does that has no method here."""
        return self._page

    def _kernel_labels(self) -> Locator:
        return self._page.locator(".jp-LauncherCard[data-category=Notebook] .jp-LauncherCard-label")

    def _outputs(self) -> Locator:
        assert self._cell is not None, "run a cell first"
        return self._cell.locator(".jp-OutputArea-output")

    def _wait_until_idle(self) -> None:
        """Wait until the status bar names the kernel as idle.

        The toolbar's circle is no help: it is idle, too, before there is any kernel, and a cell that is run
        then is lost.
        """
        status = self._page.locator("#jp-main-statusbar").get_by_text(
            re.compile(rf"^{re.escape(self._kernel)} \| Idle$")
        )
        expect(status.first).to_be_visible(timeout=PATIENCE)

    def _wait_for(self, elements: Locator, condition: str) -> None:
        """Wait until the condition, a JavaScript function of the elements, holds."""
        handles = elements.element_handles()
        self._page.wait_for_function(condition, arg=handles, timeout=PATIENCE)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _remove_notebook(self) -> None:
        """Shut down the kernel and delete the notebook that the user's click made."""
        path = unquote(urlsplit(self._page.url).path).partition("/lab/tree/")[2]
        if not path:
            return
        headers = {"Authorization": f"token {self._token}"}
        request = self._page.context.request
        for session in request.get(f"{self._url}api/sessions", headers=headers).json():
            if session["path"] == path:
                request.delete(f"{self._url}api/sessions/{session['id']}", headers=headers)
        request.delete(f"{self._url}api/contents/{quote(path)}", headers=headers)
