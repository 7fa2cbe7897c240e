"""What was said: shown long after, however often the template has changed since."""

from __future__ import annotations

import hashlib

from outbox.channels.registry import load_handlers
from tests.api.conftest import Api, job
from tests.engine.desk import Desk, dispatching

PATH = "/api/v1/templates/greeting/email/ru"
TEMPLATE = {"subject": "Привет, {{ name }}", "text": "Здравствуйте, {{ name }}."}


async def sent(api: Api, desk: Desk, **fields: object) -> str:
    """Send a mail into the sink; return its job's id."""
    posted = await api.client.post(
        "/api/v1/jobs", json=job(content=None, template_code="greeting", locale="ru", **fields)
    )
    assert posted.status_code == 202, posted.text
    job_id: str = posted.json()["job_id"]
    channels = load_handlers({"EMAIL_PROVIDER": "sink"})
    async with dispatching(desk, {}, channels=channels):
        await desk.until(lambda: desk.value("select count(*) from outbox.entry") == 0)
    return job_id


async def test_what_was_said_is_shown_after_the_template_changed_twice(open_api: Api) -> None:
    desk = Desk(open_api.database)
    await open_api.client.put(PATH, json=TEMPLATE)
    job_id = await sent(open_api, desk)
    for n in (2, 3):
        await open_api.client.put(PATH, json=TEMPLATE | {"text": f"Version {n}"})
    await open_api.client.delete(PATH)
    (delivery,) = (await open_api.client.get(f"/api/v1/jobs/{job_id}/deliveries")).json()["items"]
    assert (delivery["template_version"], delivery["locale"]) == (1, "ru")
    shown = await open_api.client.get(
        f"/api/v1/jobs/{job_id}/deliveries/{delivery['lease_no']}/content"
    )
    assert shown.status_code == 200, shown.text
    body = shown.json()
    said = "Здравствуйте, Ann."
    assert body["content"] is None
    assert body["rendered"] == {
        "subject": "Привет, Ann",
        "text": said,
        "html": None,
        "same": True,
    }
    assert body["content_sha256"] == hashlib.sha256(said.encode()).hexdigest()
    assert (body["recipient"], body["subject"]) == ("ann@example.com", "Привет, Ann")
    assert (body["template_version"], body["locale"]) == (1, "ru")
    desk.close()


async def test_what_the_template_keeps_is_shown_as_it_was_sent(open_api: Api) -> None:
    desk = Desk(open_api.database)
    await open_api.client.put(PATH, json=TEMPLATE | {"keep_content": "full"})
    job_id = await sent(open_api, desk)
    open_api.rows("delete from outbox.template")
    shown = await open_api.client.get(f"/api/v1/jobs/{job_id}/deliveries/1/content")
    assert shown.json()["content"] == "Здравствуйте, Ann."
    assert shown.json()["rendered"] is None
    absent = await open_api.client.get(f"/api/v1/jobs/{job_id}/deliveries/7/content")
    assert absent.status_code == 404
    desk.close()


async def test_a_directory_that_changed_since_is_told(open_api: Api) -> None:
    desk = Desk(open_api.database)
    await open_api.client.put(PATH, json={"text": "Dear {{ user.attributes.title }}"})
    person = "/api/v1/recipients/u1"
    await open_api.client.put(
        person, json={"email": "a@example.com", "attributes": {"title": "Dr"}}
    )
    job_id = await sent(open_api, desk, to=None, user_id="u1")
    path = f"/api/v1/jobs/{job_id}/deliveries/1/content"
    before = (await open_api.client.get(path)).json()
    assert (before["rendered"]["text"], before["rendered"]["same"]) == ("Dear Dr", True)
    await open_api.client.put(person, json={"attributes": {"title": "Prof"}})
    after = (await open_api.client.get(path)).json()
    assert (after["rendered"]["text"], after["rendered"]["same"]) == ("Dear Prof", False)
    assert "changed since" in after["note"]
    desk.close()
