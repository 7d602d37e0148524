-- A hundred events of a hundred sessions a request, out of 20,000 visitors.
--
-- The requests are made before the measurement: made within it, they take half a core from the service beside it. Each
-- hundred of visitors has ten, so that an event comes again when its session has long forgotten it.
local names = { "page_view", "view_item", "view_item", "view_item_list", "add_to_cart", "search" }
local path = os.getenv("LOTSE_PATH") or "/v1/events"
local requests, counter, last = {}, math.random(1, 1000000) * 1000, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function init()
  local after = {}
  for n = 0, 59 do
    after[n] = string.format(
      '","name":"%s","page":"/product/:id","item":"shoes-%02d","category":"shoes","price":%d.5,"channel":"organic","device":"mobile"}',
      names[n % 6 + 1], n, n % 90 + 5)
  end
  for turn = 1, 10 do
    for hundred = 0, 199 do
      local events = {}
      for n = 1, 100 do
        counter = counter + 1
        events[n] = string.format('{"visitor":"v%d","id":"e%d-%d', hundred * 100 + n, n, counter) .. after[counter % 60]
      end
      requests[#requests + 1] = wrk.format(nil, path, nil, "[" .. table.concat(events, ",") .. "]")
    end
  end
end
function request()
  last = last % #requests + 1
  return requests[last]
end
