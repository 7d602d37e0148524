-- Page views as Plausible's client sends them, from 20,000 addresses behind a proxy, and a few browsers.
local counter = 0
local function browser(n)
  return string.format(
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Safari/537.36", 150 + n)
end
wrk.method = "POST"
local path = os.getenv("LOTSE_PATH") or "/api/event"
request = function()
  counter = counter + 1
  local address = math.random(1, 20000)
  local headers = {
    ["Content-Type"] = "text/plain",
    ["User-Agent"] = browser(counter % 7),
    ["Origin"] = "https://www.shop.example",
    ["Referer"] = "https://www.shop.example/",
    ["X-Forwarded-For"] = string.format("203.%d.%d.9", math.floor(address / 250), address % 250),
  }
  local body = string.format(
    '{"n":"pageview","v":36,"u":"https://www.shop.example/product/%d?utm_source=news","d":"shop.example","r":"https://www.google.com/","p":{"sku":"shoes-%02d","price":%d.5}}',
    counter % 500, counter % 60, counter % 90 + 5)
  return wrk.format(nil, path, headers, body)
end
