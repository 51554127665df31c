"""Configuration and storage: what the operator tells dialcast, and what dialcast must not forget.

`config` the typed models (`value_types` their kinds of value), `loader` YAML and environment into them, `reference`
the generated documentation; `schema` the tables, `database` the connection and the group-committing writer,
`store` the ports of the service logic, `subscribers` accounts and seeding, `cli` the operator's commands.
"""
