"""Our own terminals: a viewer types a question, the broadcaster types an answer."""

from pathlib import Path

from live import going_live, watching
from server import Server


def test_a_question_and_its_answer_show_on_the_screens(tmp_path: Path) -> None:
    with (
        Server(tmp_path / "data") as server,
        going_live(tmp_path, server, "1001") as live,
        watching(tmp_path, server, "1002", "1001") as viewer,
    ):
        viewer.type_line("t Where are you? 在哪里")
        live.phone.wait("the question", 5, lambda: "1002: Where are you? 在哪里" in live.phone.output or None)
        live.type_line("text By the river.")
        viewer.phone.wait("the answer", 5, lambda: "1001: By the river." in viewer.phone.output or None)
        viewer.type_line("t " + "x" * 801)
        viewer.phone.wait(
            "the refusal", 5, lambda: any("was not taken: 413" in line for line in viewer.phone.output) or None
        )
