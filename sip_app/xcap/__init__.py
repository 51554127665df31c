"""XCAP (RFC 4825) for supplementary services (3GPP TS 24.623): users read and change their diversions over HTTP.

`server` is the HTTP side (who asks, how much, which status), `selector` reads paths, `document` turns a user's rules
into the simservs document and back, `editing` carries out one request on it, `errors` are the reports of section 11.
The document is no second copy: it is rendered from the rules in the store, which dialled codes change too.
"""
