"""What others may follow and say of broadcasts, hung onto a server: presence, lamps, roster, messages, voice."""

from sip_app.broadcast.announcements import Announcements
from sip_app.broadcast.conference import ConferencePackage
from sip_app.broadcast.group import Broadcasting
from sip_app.broadcast.messages import Messages
from sip_app.broadcast.pin import PinDesk
from sip_app.broadcast.presence import DIALOG, PRESENCE, Liveness, LivePackage
from sip_app.server import ApplicationServer


def attach(server: ApplicationServer, service: Broadcasting) -> None:
    """Serve the event packages and messages of this broadcast service on this server; before it starts."""
    notifier, registrar = server.notifier, server.registrar
    conference = ConferencePackage(service, notifier)
    notifier.packages[conference.name] = conference
    service.observers.append(conference)
    if notifier.settings.presence_watchers != "nobody":
        liveness = Liveness(service, notifier, registrar)
        notifier.packages[PRESENCE] = LivePackage(PRESENCE, liveness)
        notifier.packages[DIALOG] = LivePackage(DIALOG, liveness)
        service.observers.append(liveness)
        registrar.observers.append(liveness.registration_changed)
    service.announcements = server.codes.announcements = announcements = Announcements(service)
    service.ask_pin = PinDesk(announcements).admit
    server.messages = service.messages = Messages(service, server.endpoint, registrar, service.config)
