"""What computes, and what it shares with the producer.

From the ground up: `contract` (what both sides agree on), `storage` (where files are), `deconv` (the
mathematics), `fleet` (what workers share through Redis), `audit` (statistics of a data set), `pipeline` (a
shard from manifest to record), `report` (the pages), `runtime` (one message), `tasks` and `app` (Celery's
doorway), `machine` and `launch` (one machine's processes).
"""
