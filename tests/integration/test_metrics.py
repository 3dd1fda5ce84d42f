"""What Prometheus reads from the administrator's listener."""

from prometheus_client.parser import text_string_to_metric_families

from tests.running_venue import Venue


async def read(venue: Venue) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the samples by name and label values."""
    async with venue.session.get(f"{venue.admin_url}/metrics") as response:
        assert 200 == response.status
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await response.text()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_requests_refusals_and_acknowledgements_are_counted(venue: Venue) -> None:
    """By call and status, by code, and how long orders took; what was read of the log beside them."""
    alice = await venue.account()
    await alice.order()
    await alice.order(quantity="1000000")
    await venue.send("GET", "/fapi/v1/nowhere")
    found = await read(venue)
    assert 1 == found["foldex_requests_total", ("POST /fapi/v1/order", "200")]
    assert 1 == found["foldex_requests_total", ("POST /fapi/v1/order", "400")]
    assert 1 == found["foldex_requests_total", ("other", "404")]
    assert 1 == found["foldex_refusals_total", ("-4005",)]
    assert 1 == found["foldex_order_ack_seconds_count", ()]
    assert 1 == found["foldex_order_ack_seconds_bucket", ("+Inf",)]
    assert 0 < found["foldex_order_ack_seconds_sum", ()] < 10
    _, state = await venue.admin("state")
    assert state["seq"] == found["foldex_seq", ()] == found["foldex_entry_bytes_count", ()]
    assert 0 == found["foldex_intake_lag_entries", ()]
    assert found["foldex_events_total", ()] > found["foldex_seq", ()]


async def test_metrics_are_not_public(venue: Venue) -> None:
    """The public listener has no such path."""
    assert 404 == (await venue.send("GET", "/metrics"))[0]
