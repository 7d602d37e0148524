-- An empty JSON object: the least a stock BentoML method takes.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = "{}"
request = function()
  return wrk.format(nil, os.getenv("LOTSE_PATH") or "/noop")
end
