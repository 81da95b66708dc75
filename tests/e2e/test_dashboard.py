"""The dashboard in a real browser, over real processes. Screenshots are kept as artifacts/dashboard-….png."""

import functools
import json
import re
import shutil
from pathlib import Path

import pytest
import test_holdings
from harness import EXCHANGES, PATIENCE_S, Stack, wait_until

ROOT = Path(__file__).parents[2]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
TOKEN = "0123456789abcdef0123456789abcdef"
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1400,1600"),
)
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs a browser: `apt-get install chromium chromium-driver`, or what your system calls them",
)


class Page:
    """What a user sees and does."""

    def __init__(self, driver):
        self.driver = driver

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        return self.driver.execute_script(
            "return document.querySelector(arguments[0])?.textContent ?? ''", selector
        )

    def row(self, topic):
        """Return the texts of a ticker's cells."""
        return self.driver.execute_script(
            "return [...document.querySelectorAll(`tr[data-topic='${arguments[0]}'] > *`)].map(c => c.textContent)",
            topic,
        )

    def is_shown(self, selector):
        return self.driver.execute_script("return !document.querySelector(arguments[0]).hidden", selector)

    def resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def set_scheme(self, scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def rows_in_sight(self):
        """How many rows of the table of tickers are wholly to be seen without scrolling, with their prices."""
        return self.driver.execute_script(
            """
            const isSeen = (box) => box.width && box.top >= 0 && box.left >= 0
              && box.bottom <= innerHeight && box.right <= document.documentElement.clientWidth;
            scrollTo(0, 0);
            return [...document.querySelectorAll('#rows tbody tr')]
              .map(row => [...row.children].slice(0, 5).filter(e => e.offsetParent))
              .filter(cells => cells.length >= 4 && cells.every(e => isSeen(e.getBoundingClientRect())))
              .length
            """
        )

    def shoot(self, name):
        (ROOT / "artifacts").mkdir(exist_ok=True)
        assert self.driver.save_screenshot(str(ROOT / "artifacts" / f"dashboard-{name}.png"))

    def until(self, condition, what):
        return wait_until(condition, what, PATIENCE_S)

    def use_token(self, token):
        self.find("#token").clear()
        self.find("#token").send_keys(token)
        self.find("#token-form button[type=submit]").click()

    def set_token(self):
        self.use_token(TOKEN)
        self.until(lambda: self.text("#token-state") == "accepted", "the token is accepted")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("dashboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEEDHANDLER_API_TOKEN", TOKEN)
        extra = dict.fromkeys(EXCHANGES, "backoff_max_s = 1.0\nstale_after_s = 2")
        extra["binance"] += '\nkinds = ["ticker", "trade", "depth"]'
        s = Stack(directory, rate=300, extra=extra)
        try:
            s.start("sim", "merger", *s.exchanges, "gateway")
            s.wait_live()
            yield s
        finally:
            s.close()


@pytest.fixture(scope="module")
def page(world, tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for each in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_script_timeout(PATIENCE_S)
        made = Page(driver)
        driver.get(world.gateway + "/")
        made.until(lambda: made.text("#link") == "connected to the gateway", "the page is connected")
        yield made
    finally:
        driver.quit()


def test_the_quality_of_data_is_summed_up(page):
    rows = "return [...document.querySelectorAll('#quality tbody tr')].map(r => r.children[0].textContent)"
    page.until(lambda: page.driver.execute_script(rows)[:3] == sorted(EXCHANGES), "a row for each exchange")
    assert not page.is_shown("#recording"), "nothing is recorded"


def test_every_symbol_has_a_row_that_moves_and_says_what_it_is(page):
    topic = "ticker.binance.BTC/USDT"
    page.until(lambda: len(page.driver.find_elements("css selector", "#rows tbody tr")) == 15, "15 rows")
    first = page.until(lambda: (row := page.row(topic)) and row[-1] == "LIVE" and row, "its row, live")
    assert first[:2] == ["BTC/USDT", "binance"]
    page.until(lambda: page.row(topic)[2:5] != first[2:5], "its price moves")
    page.until(lambda: page.driver.find_elements("css selector", "svg.spark polyline"), "sparklines")
    page.until(
        lambda: page.text("#simulated") == "SIMULATED" and page.is_shown("#simulated"),
        "it is no real exchange",
    )
    assert page.until(lambda: page.driver.find_elements("css selector", "#latency canvas"), "the plot")
    page.until(lambda: "leg 0" in page.text("#exchanges"), "legs")
    page.until(
        lambda: re.search(r"total p50:?[0-9.]+ .s", page.text("#latency")), "values without pointing at them"
    )


def test_trades_and_a_ladder_of_depth_are_shown_of_one_symbol_and_move(page):
    def column(selector):
        return page.driver.execute_script(
            "return [...document.querySelectorAll(`${arguments[0]} tr td:first-child`)].map(e => e.textContent)",
            selector,
        )

    def prices(selector):
        return [float(text.replace(",", "")) for text in column(selector) if text]

    page.until(lambda: page.is_shown("#market"), "the card, of what is configured")
    choices = page.driver.execute_script(
        "return [...document.querySelectorAll('#watched option')].map(e => e.value)"
    )
    assert len(choices) == 5, choices
    assert all(each.startswith("binance ") for each in choices), "of others neither is configured"
    first = page.find("#watched").get_attribute("value")
    other = next(each for each in choices if each != first)
    for symbol in (first, other):
        page.driver.execute_script(
            "const s = document.querySelector('#watched'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input'))",
            symbol,
        )
        page.until(lambda: len(prices("#asks")) == len(prices("#bids")) == 8, "eight levels a side")
        ladder = prices(":is(#asks, #bids)")  # of one moment
        assert ladder == sorted(ladder, reverse=True), "the dearest is on top"
        page.until(lambda: column("#trades tbody"), "trades")
        page.until(lambda old=ladder: prices(":is(#asks, #bids)") != old, "it moves")
    assert "DOWN" not in page.text("#spread")
    page.driver.execute_script("location.reload()")
    page.until(lambda: page.text("#link") == "connected to the gateway", "connected anew")
    page.until(lambda: prices("#asks"), "the ladder again")
    assert page.find("#watched").get_attribute("value") == other, "the choice outlives a reload"


PERPETUAL = "BTC/USDT:USDT"
UNKNOWN = "\N{EN DASH}"
SIGN = "[+\N{MINUS SIGN}]"
RATE = SIGN + r"0\.\d{4} %"


def contract_of(page):
    """What is shown of a contract, by the names of its rows."""
    rows = "return [...document.querySelectorAll('#contract tr')].map(r => [...r.children].map(c => c.textContent))"
    return dict(page.driver.execute_script(rows))


def hours_of(page):
    """What is shown of the chosen symbol's newest hour, by kind."""
    cells = (
        "[...document.querySelectorAll('#hours tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    )
    return {kind: rest for _, kind, *rest in reversed(page.driver.execute_script(f"return {cells}"))}


def choose(page, topic):
    page.driver.execute_script(
        "const s = document.querySelector('#watched'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
        topic,
    )


def test_of_a_perpetual_basis_funding_open_interest_and_liquidations_are_shown(page, tmp_path):
    kinds = ["ticker", "trade", "depth", "contract", "liquidation"]
    extra = {name: f"kinds = {json.dumps(kinds)}" for name in ("okx", "kucoin")}
    extra["kucoin"] = extra["kucoin"].replace(', "liquidation"', "")  # it has no channel of them
    other = Stack(
        tmp_path,
        exchanges=("okx", "kucoin"),
        symbols=("BTC/USDT", PERPETUAL),
        sim="busiest_per_s = 50",  # at a known rate liquidations are spread over all contracts
        extra=extra,
    )
    here = page.driver.current_url
    try:
        other.start("sim", "merger", "okx", "kucoin", "gateway")
        page.until(lambda: other.log("gateway").count("listening"), "it listens")
        page.driver.get(other.gateway + "/")
        page.until(lambda: "okx " + PERPETUAL in page.text("#watched"), "what there is of it")
        choose(page, "okx BTC/USDT")
        page.until(
            lambda: not page.is_shown("#contract") and not page.is_shown("#liquidated"), "spot has none"
        )
        choose(page, f"okx {PERPETUAL}")
        page.until(lambda: page.is_shown("#contract") and page.is_shown("#ladder"), "beside its ladder")
        page.until(lambda: re.fullmatch(RATE + " every 8 h", contract_of(page)["Funding"]), "its funding")
        page.until(lambda: re.fullmatch(r"[0-7]:[0-5]\d:[0-5]\d", contract_of(page)["Due in"]), "a countdown")
        due = contract_of(page)["Due in"]
        page.until(lambda: contract_of(page)["Due in"] != due, "it goes on")
        page.until(
            lambda: re.fullmatch(SIGN + r"\d+\.\d bp to BTC/USDT", contract_of(page)["Basis"]), "the basis"
        )
        page.until(lambda: re.fullmatch(r"[\d,.]+ BTC", contract_of(page)["Open interest"]), "from a channel")
        shown = contract_of(page)
        assert shown["Predicted"] == UNKNOWN, "it says so of those whose rate is of the present period"
        assert re.fullmatch(r"[\d,]+\.\d", shown["Mark"]), shown
        assert re.fullmatch(r"[\d,]+\.\d", shown["Index"]), shown
        page.until(
            lambda: page.driver.find_elements("css selector", "#liquidations tbody tr"), "a liquidation"
        )
        assert page.text("#liquidations-state") == "the exchange leaves out all but one a second and contract"
        page.until(
            lambda: "trade" in hours_of(page) and hours_of(page)["trade"][0] != "0", "what came, by hour"
        )
        _, lost, _, invalid, unproven = hours_of(page)["trade"]
        assert (lost, invalid) == ("0", "0.0 s")
        assert unproven, "what cannot be known"
        page.shoot("perpetual")
        choose(page, f"kucoin {PERPETUAL}")
        page.until(lambda: not page.is_shown("#liquidated"), "none there")
        page.until(
            lambda: re.fullmatch(r"[\d,.]+ BTC \(REST, up to .* old\)", contract_of(page)["Open interest"]),
            "with the age of what is polled",
        )
        page.until(lambda: re.fullmatch(RATE, contract_of(page)["Predicted"]), "a rate that is predicted")
        choose(page, f"okx {PERPETUAL}")
        other.kill("okx")
        page.until(lambda: "DOWN" in page.text("#contract-state"), "that it is not of now")
        page.until(lambda: contract_of(page)["Basis"].startswith(UNKNOWN), "and no basis")
    finally:
        page.driver.get(here)
        other.close()
    page.until(lambda: page.text("#link") == "connected to the gateway", "back to the first one")


def test_prices_have_the_decimals_of_their_tick(page, world):
    for exchange in world.exchanges:
        listed = test_holdings.ask(world, "GET", f"/v1/instruments?exchange={exchange}")[1]["instruments"]
        ticks = {each["symbol"]: each["tick"] for each in listed}
        for symbol in ("BTC/USDT", "XRP/USDT"):
            topic = f"ticker.{exchange}.{symbol}"
            page.until(functools.partial(page.row, topic), f"a row of {topic}")
            shown = page.row(topic)[2:5]
            places = len(ticks[symbol].partition(".")[2])
            assert places > 0
            assert [len(price.partition(".")[2]) for price in shown] == [places] * 3, shown
            assert shown[1] != shown[2], "bid and ask differ by a tick at least"


def test_prices_are_above_the_fold(page):
    for size, count in (((1280, 800), 15), ((390, 844), 12)):
        page.resize(*size)
        page.until(lambda count=count: page.rows_in_sight() >= count, f"{count} rows at {size}")
        assert page.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    for size in ((1280, 800), (390, 844)):
        shoot_in_both_schemes(page, size, "live")
    page.resize(1400, 1600)


def test_axe_finds_nothing(page):
    axe = pytest.importorskip(
        "axe_core_python.selenium", reason="needs axe-core-python, from the extra `test`"
    )
    for scheme in ("light", "dark"):
        page.set_scheme(scheme)
        page.driver.execute_script(
            "document.querySelector('#exchanges').open = arguments[0] === 'dark'", scheme
        )
        found = axe.Axe().run(page.driver)["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    page.driver.execute_script("document.querySelector('#exchanges').open = false")


def test_the_table_can_be_filtered_and_sorted_by_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    page.find("#filter").send_keys("eth kucoin")
    page.until(lambda: len(page.driver.find_elements("css selector", "#rows tbody tr")) == 1, "one row")
    page.find("#filter").send_keys(Keys.CONTROL, "a")
    page.find("#filter").send_keys(Keys.DELETE)
    page.find("[data-sort=last]").send_keys(Keys.ENTER)
    header = page.find("[data-sort=last]").find_element("xpath", "..")
    page.until(lambda: header.get_attribute("aria-sort") == "ascending", "sorted")
    page.find("[data-sort=last]").send_keys(Keys.ENTER)
    page.until(lambda: page.text("#rows tbody tr th") == "BTC/USDT", "the dearest is first")


def test_a_tab_reaches_every_control_and_each_has_a_name(page):
    unnamed = page.driver.execute_script(
        """return [...document.querySelectorAll('button, input, select')]
             .filter(e => !e.labels?.length && !e.getAttribute('aria-label') && !e.textContent.trim())
             .map(e => e.outerHTML)"""
    )
    assert unnamed == []
    from selenium.webdriver.common.keys import Keys

    page.driver.execute_script("document.activeElement.blur()")
    wanted = {"filter", "plotted", "token", "subscribe-exchange", "subscribe-symbol", "watched"}
    for _ in range(80):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        wanted.discard(page.driver.switch_to.active_element.get_attribute("id"))
    assert wanted == set()


def test_a_fault_is_shown_in_words_and_its_end_too(page, world):
    world.fault("bybit", "stall", seconds=6)
    page.until(lambda: "STALE" in page.row("ticker.bybit.BTC/USDT")[-1], "the row says STALE")
    page.until(
        lambda: "bybit is STALE" in page.text("#trouble") and page.is_shown("#trouble"), "the banner, too"
    )
    page.until(lambda: "LIVE" in page.row("ticker.bybit.BTC/USDT")[-1], "and LIVE again")
    world.fault("bybit", "refuse", seconds=4)
    world.fault("bybit", "rst")
    page.until(lambda: "DOWN" in page.row("ticker.bybit.BTC/USDT")[-1], "the row says DOWN")
    page.until(lambda: "LIVE" in page.row("ticker.bybit.BTC/USDT")[-1], "and LIVE again")
    page.until(lambda: not page.is_shown("#trouble"), "the banner goes")
    page.until(lambda: "bybit: live again, after" in page.text("#events"), "the last hour has it")
    assert "bybit: stale: " in page.text("#events")
    assert "bybit: reconnected after: " in page.text("#events")
    assert not page.is_shown("#events-none")


def test_a_symbol_is_subscribed_and_unsubscribed_from_the_page(page):
    page.find("#subscribe-symbol").send_keys("DOGE/USDT")
    page.find("#subscribe-form button[value=subscribe]").click()
    page.until(
        lambda: page.text("#subscribe-state") == "enter the token first", "without the token it says so"
    )
    page.use_token("x" * 32)
    page.until(lambda: page.text("#token-state") == "wrong token", "a wrong one is told so")
    page.find("#subscribe-form button[value=subscribe]").click()
    page.until(lambda: page.text("#subscribe-state") == "wrong token", "here, too")
    page.set_token()
    assert page.text("#subscribe-state") == "", "what was refused for want of the token is not said any more"
    page.find("#subscribe-form button[value=subscribe]").click()
    page.until(lambda: page.text("#subscribe-state").endswith("is subscribed"), "it is subscribed")
    exchange = page.find("#subscribe-exchange").get_attribute("value")
    topic = f"ticker.{exchange}.DOGE/USDT"
    page.until(lambda: "LIVE" in (page.row(topic) or [""])[-1], "its row is live")
    page.find("#subscribe-form button[value=unsubscribe]").click()
    page.until(lambda: page.row(topic)[-1] == "NOT SUBSCRIBED", "that nobody wants it is no fault")
    assert not page.is_shown("#trouble")
    page.find("#subscribe-symbol").clear()
    page.find("#subscribe-symbol").send_keys("btc/usdt")
    page.find("#subscribe-form button[value=unsubscribe]").click()
    page.until(
        lambda: page.text("#subscribe-state") == "this symbol comes from the configuration file",
        "whose it is",
    )
    page.find("#subscribe-symbol").clear()
    page.find("#subscribe-symbol").send_keys("E")
    assert page.text("#subscribe-state") == "", "what was said of another symbol is gone"


def test_disconnecting_asks_once(page):
    page.driver.execute_script("document.querySelector('#exchanges').open = true")
    row = page.driver.find_element("xpath", "//details//tr[th='kucoin']")
    button = row.find_element("xpath", ".//button[contains(., 'onnect')]")
    button.click()
    page.until(lambda: page.text("#sure-title") == "Disconnect from kucoin?", "it asks")
    page.find("#sure button[value='']").click()
    page.until(lambda: not page.driver.execute_script("return document.querySelector('#sure').open"), "no")
    assert button.text == "Disconnect"
    button.click()
    page.find("#sure button[value=yes]").click()
    page.until(lambda: button.text == "Connect", "yes")
    page.until(
        lambda: page.row("ticker.kucoin.BTC/USDT")[-1] == "NOT SUBSCRIBED", "by order: that is no fault"
    )
    button.click()
    page.until(lambda: page.row("ticker.kucoin.BTC/USDT")[-1] == "LIVE", "and back, without a question")
    page.driver.execute_script("document.querySelector('#exchanges').open = false")


def test_while_the_merger_is_silent_nothing_is_said_of_exchanges(page, world):
    world.fault("bybit", "stall", seconds=600)
    page.until(lambda: page.text("#exchanges .strip").count("stale"), "one exchange is stale")
    for size in ((1280, 800), (390, 844)):
        shoot_in_both_schemes(page, size, "stalled")
    world.fault("bybit", "none")
    world.kill("merger")
    page.until(lambda: "The merger is silent" in page.text("#trouble"), "it says so")
    page.until(lambda: page.text("#exchanges .strip").count("unknown") == 3, "and that nothing is known")
    assert "/s" not in page.text("#exchanges .strip")
    assert not re.search(r"is (LIVE|STALE|DOWN)", page.text("#trouble"))
    assert not re.search(r"[0-9]+ records/s", page.text("#rate"))
    for size in ((1280, 800), (390, 844)):
        shoot_in_both_schemes(page, size, "silent")
    world.start("merger")
    page.until(lambda: page.text("#exchanges .strip").count("live") == 3, "all is known again")
    page.until(lambda: "the merger was started anew" in page.text("#events"), "the last hour has it")
    page.resize(1400, 1600)


def shoot_in_both_schemes(page, size, name):
    page.resize(*size)
    for scheme in ("light", "dark"):
        page.set_scheme(scheme)
        page.shoot(f"{name}-{size[0]}x{size[1]}-{scheme}")


def test_balances_are_shown_with_the_token_and_not_without(page, world):
    assert page.is_shown("#sync"), "the token was given"
    assert not page.is_shown("#balances")
    test_holdings.put_credentials(world, "kucoin")
    page.until(lambda: "10250.5" in page.text("#balances"), "balances")
    page.driver.execute_script("sessionStorage.clear(); location.reload()")
    page.until(lambda: page.text("#link") == "connected to the gateway", "connected anew")
    assert "10250.5" not in page.text("body")


def test_the_page_says_that_it_has_lost_the_gateway_and_finds_it_again(page, world):
    world.kill("gateway")
    page.until(lambda: page.text("#link") == "connection lost" or page.is_shown("#lost"), "it is lost")
    page.until(lambda: "lost its connection" in page.text("#lost"), "it says so")
    world.start("gateway")
    page.until(lambda: page.text("#link") == "connected to the gateway", "it is back")
    page.until(lambda: not page.is_shown("#lost"), "and says so")
    page.until(lambda: "LIVE" in (page.row("ticker.binance.BTC/USDT") or [""])[-1], "with live data")


def test_beyond_the_own_machine_the_page_asks_for_the_token_first(page, tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDHANDLER_API_TOKEN", TOKEN)
    other = Stack(tmp_path, exchanges=("binance",), rate=50, gateway='hosts = ["127.0.0.1"]')
    text = other.config.read_text(encoding="utf-8")
    other.config.write_text(text.replace('http = "127.0.0.1:', 'http = "0.0.0.0:'), encoding="utf-8")
    here = page.driver.current_url
    try:
        other.start("sim", "merger", "binance", "gateway")
        other.wait_live()
        page.until(lambda: other.log("gateway").count("listening"), "it listens")
        page.driver.get(other.gateway + "/")
        page.until(lambda: page.text("#link") == "token wanted", "it asks for the token")
        assert "without its token" in page.text("#lost")
        assert page.row("ticker.binance.BTC/USDT") == []
        page.set_token()
        page.until(lambda: "LIVE" in (page.row("ticker.binance.BTC/USDT") or [""])[-1], "then it shows all")
    finally:
        page.driver.get(here)
        other.close()
    page.until(lambda: page.text("#link") == "connected to the gateway", "back to the first one")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_in_light_and_dark(page, scheme):
    page.set_scheme(scheme)
    page.until(lambda: page.row("ticker.binance.BTC/USDT"), "rows")
    page.driver.execute_script("document.querySelector('#rows tbody tr').classList.add('old')")
    worst = page.driver.execute_script(
        """
        const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = (c) => { const v = c / 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
        const bright = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
        const up = (e) => (e ? [e, ...up(e.parentElement)] : []);
        const back = (e) => up(e).map(each => rgb(getComputedStyle(each).backgroundColor))
          .find(c => c.length < 4 || c[3] > 0) ?? [255, 255, 255];
        const contrast = (e) => {
          if (up(e).some(each => getComputedStyle(each).opacity < 1)) return 0;
          const [a, b] = [bright(rgb(getComputedStyle(e).color)), bright(back(e))];
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        };
        return [...document.querySelectorAll('h1,h2,p,th,td,label,button,.badge')]
          .filter(e => e.offsetParent && e.textContent.trim() && ![...e.children].length)
          .map(e => [contrast(e), e.outerHTML.slice(0, 120)])
          .sort((x, y) => x[0] - y[0])[0];
        """
    )
    assert worst[0] >= 4.5, f"WCAG AA asks for 4.5: {worst}"


def test_nothing_is_asked_of_another_host_and_the_console_is_empty(page, world):
    hosts = page.driver.execute_script(
        "return [...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).host))]"
    )
    assert hosts == [world.gateway.removeprefix("http://")]
    # of the tests above
    noise = ("net::ERR_CONNECTION_REFUSED", "WebSocket connection", "401 (Unauthorized)")
    errors = [e for e in page.driver.get_log("browser") if not any(each in e["message"] for each in noise)]
    assert errors == []
