"""Every scenario ends in a ZIP that somebody on a fresh machine can run by its README alone.

The ZIP is unpacked for an unprivileged user with an empty home and no network, who types the README's commands into one
shell, in order, word for word, and then uses what is there once in a way that no README shows.
"""

import io
import shlex
import zipfile

import pytest

from cluster.simulator.scenario import SCENARIOS, Scenario, scenario_names
from runtime.entity.journal import EventRecord
from runtime.ids import project_entity
from runtime.implementer.work import CheckWork, Limits
from runtime.project import messages
from runtime.project.documents import readme_commands
from runtime.project.messages import Status
from runtime.project.package import ROOT
from tests.e2e.world import World

USE = {
    "expense_tracker": (
        "export EXPENSES_DB=$HOME/ours.db && python3 expenses.py add 7,05 Tea --day 2031-05-06 && "
        "python3 expenses.py report 2031-05 | grep -E '^tea +7.05 +100%'"
    ),
    "meter_report": (
        "printf 'meter,flat\\nZ,7\\n' > $HOME/m.csv && "
        "printf 'meter,time,kwh\\nZ,2031-02-01 08:00,\"10,001\"\\nZ,2031-01-01 08:00,9.5\\n' > $HOME/r.csv && "
        ".venv/bin/python meter_report.py $HOME/r.csv --meters $HOME/m.csv --out $HOME/o && "
        "grep -x 7,2031-02,0.501 $HOME/o/usage.csv && grep -q '<td>0.501</td>' $HOME/o/report.html"
    ),
    "plant_care": (
        "export PLANTS_FILE=$HOME/ours.json && python3 plants.py add 'Ficus, old' --room Attic --every '2 weeks' && "
        "python3 plants.py due | grep -F 'Ficus, old (Attic)' && "
        "python3 plants.py calendar --output $HOME/w.ics && grep -F 'INTERVAL=14' $HOME/w.ics && "
        "grep -F 'Ficus\\, old' $HOME/w.ics"
    ),
    "room_booking": (
        'ask() { curl -s --retry 20 --retry-delay 1 --retry-connrefused "http://127.0.0.1:8080$1" -d "$2"; } && '
        'ask /rooms \'{"name": "Łódź", "seats": 3}\' && '
        'ask /rooms/1/bookings \'{"day": "2031-05-06", "from": "23:00", "to": "24:00", "who": "Us"}\' && '
        'ask /rooms/1/bookings \'{"day": "2031-05-06", "from": "23:59", "to": "24:00", "who": "You"}\' '
        "| grep -F 'Us has the room from 23:00 to 24:00.'"
    ),
    "tidy_duration": (
        'node --input-type=module -e \'import { format, parse } from "tidy-duration"; '
        "console.log(format(parse(\"2 weeks 3h\") + 999.6, { long: true }))' | grep -x '2 weeks, 3 hours, 1 second'"
    ),
    "trip_split": (
        "curl -s --retry 20 --retry-delay 1 --retry-connrefused http://127.0.0.1:8000/ | grep -F 'Kto komu przelewa?' "
        "&& curl -sf http://127.0.0.1:8000/app.js -o $HOME/app.js && node --check $HOME/app.js"
    ),
}
_TYPED = """eval {command}; status=$?
echo "[{number}: exit $status]"
[ $status -eq 0 ] || exit 1
"""
_LIMITS = Limits(wall_s=200.0, cpu_s=120, process_count=512)


def test_every_scenario_has_a_use() -> None:
    assert sorted(USE) == scenario_names()


@pytest.mark.parametrize("name", scenario_names())
async def test_scenario__is_delivered_and_runs_by_its_readme_alone(world: World, name: str) -> None:
    scenario = Scenario.load(SCENARIOS / name)
    events = await built(world, scenario)
    assert events[-1].data["status"] == Status.COMPLETED, events[-1].data["reason"]
    delivered = await unzipped(world, events)
    readme = delivered["README.md"].decode()
    assert "- [ ]" not in delivered["TODO.md"].decode()

    commands = [*readme_commands(readme), USE[name]]
    session = "".join(
        _TYPED.format(command=shlex.quote(command), number=number) for number, command in enumerate(commands, 1)
    )
    work = CheckWork(tree=delivered, commands=[session], limits=_LIMITS, total_s=240.0)
    [result] = (await world.implementer.check(work)).results
    assert result.passed, result.output
    assert f"[{len(commands)}: exit 0]" in result.output


async def built(world: World, scenario: Scenario) -> list[EventRecord]:
    """All events of the build. What the person wishes for meanwhile is said once the first task is done."""
    project = (await world.order(brief=scenario.brief, answers=scenario.answers)).id
    if scenario.change:
        entity = project_entity(project)
        await world.until(project, "task.merged")
        await world.host.ask(entity, messages.Change(key="change", text=scenario.change))
        await world.until(project, "change.proposed")
        await world.host.ask(entity, messages.Approve(key="approve"))
    return await world.until(project, "project.finished")


async def unzipped(world: World, events: list[EventRecord]) -> dict[str, bytes]:
    """Path inside the project's folder -> content."""
    blob = next(event.data["blob"] for event in events if event.type == "package.ready")
    with zipfile.ZipFile(io.BytesIO(await world.store.books.get_blob(blob))) as archive:
        return {name.removeprefix(f"{ROOT}/"): archive.read(name) for name in archive.namelist()}
