"""The softphone, `dialcast phone`: one program that broadcasts in one call and watches in the next.

Signalling: `signalling` the parent's side of pjsua2, which runs in a process of its own (`signalling_child`, `messages`
between them, `amr_codec` teaching it AMR), `offer` our SDP, `codes` service codes. A call: `phone` lines and calls,
`talk` one conversation, `happenings` what can happen in it, `outcome` how it ended, `screen` the connected screen,
`journal` its events, `cli` the commands.
Media: `media` the session, `rtp_session` one medium's packets and join, `capture`, `microphone`, `sending`,
`receiving`, `video_encoder`, `video_decoder`, `video_buffer`, `audio_codec`, `audio_playout`, `sinks`, `recorder`,
`stamp` the counter drawn into pictures, `rates`, `streams` the values they share, `report` what a call was like.
"""
