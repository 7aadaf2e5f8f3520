"""The metrics adapter: the workers' gauges as `external.metrics.k8s.io`, for the autoscalers of Managed roles.

```
pods ──watch──> Workers ─┐
                         ├─> Answerer ─> aiohttp over TLS, for the front proxy alone
/metrics ──on demand──> Scraper
Secret and APIService ──watch──> Keeper ─> the certificate that is served, and the bundle that the API server trusts
```
"""
