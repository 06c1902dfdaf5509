package conformance

// corsCases ask for permission from pages of several origins.
var corsCases = []diffCase{
	{name: "CORS: a preflight", raw: preflight("/shop", "https://shop.test", "access-control-request-headers: x-a")},
	{name: "CORS: a preflight of a prefix", raw: preflight("/shop", "https://dev.shop.test:8443")},
	{name: "CORS: a preflight of a regex", raw: preflight("/shop", "https://a.b.pre.test:99")},
	{name: "CORS: a regex takes whole origins", raw: preflight("/shop", "https://a.pre.test.evil")},
	{name: "CORS: a preflight of another origin", raw: preflight("/shop", "https://evil.test")},
	{name: "CORS: a preflight of an origin in another case", raw: preflight("/shop", "https://SHOP.test")},
	{name: "CORS: a preflight for a method that is not listed", raw: preflight("/shop", "https://shop.test", "access-control-request-headers: x-z")},
	{name: "CORS: a preflight without a method", raw: req("OPTIONS", "cors.test", "/shop", "", "origin: https://shop.test")},
	{name: "CORS: a preflight with an empty method", raw: req("OPTIONS", "cors.test", "/shop", "", "origin: https://shop.test", "access-control-request-method:")},
	{name: "CORS: a preflight without an origin", raw: req("OPTIONS", "cors.test", "/shop", "", "access-control-request-method: PUT")},
	{name: "CORS: a preflight with an empty origin", raw: preflight("/shop", "")},
	{name: "CORS: a preflight of nobody", raw: preflight("/shop", "null")},
	{name: "CORS: a preflight with a body", raw: req("OPTIONS", "cors.test", "/shop", "hello", "origin: https://shop.test", "access-control-request-method: PUT")},
	{name: "CORS: a GET", raw: get("cors.test", "/shop", "origin: https://shop.test")},
	{name: "CORS: a GET with a preflight's header", raw: get("cors.test", "/shop", "origin: https://shop.test", "access-control-request-method: PUT")},
	{name: "CORS: a GET of another origin", raw: get("cors.test", "/shop", "origin: https://evil.test")},
	{name: "CORS: a GET without an origin", raw: get("cors.test", "/shop")},
	{name: "CORS: two origins", raw: get("cors.test", "/shop", "origin: https://evil.test", "origin: https://shop.test")},
	{name: "CORS: an upstream that has its own opinion", raw: get("cors.test", "/any", "origin: https://x.test",
		rawAnswer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\naccess-control-allow-origin: https://up.test\r\naccess-control-expose-headers: x-up\r\n\r\n"))},
	{name: "CORS: anyone", raw: preflight("/any", "http://x.test", "access-control-request-headers: x-q, x-r")},
	{name: "CORS: a GET of anyone", raw: get("cors.test", "/any", "origin: http://x.test")},
	{name: "CORS: anyone with credentials", raw: preflight("/all", "http://x.test", "access-control-request-headers: x-q, x-r")},
	{name: "CORS: anyone, and no headers asked for", raw: preflight("/all", "http://x.test")},
	{name: "CORS: a GET of anyone with credentials", raw: get("cors.test", "/all", "origin: http://x.test")},
	{name: "CORS: a preflight that is ignored", raw: preflight("/ignore", "https://evil.test")},
	{name: "CORS: a preflight where others are ignored", raw: preflight("/ignore", "https://shop.test")},
	{name: "CORS: a GET where others are ignored", raw: get("cors.test", "/ignore", "origin: https://evil.test")},
	{name: "CORS: a preflight of a redirect", raw: preflight("/redirect", "https://shop.test")},
	{name: "CORS: a GET that is redirected", raw: get("cors.test", "/redirect", "origin: https://shop.test")},
	{name: "CORS: a preflight of a direct response", raw: preflight("/direct", "https://shop.test")},
	{name: "CORS: a GET that is answered directly", raw: get("cors.test", "/direct", "origin: https://shop.test")},
	{name: "CORS: a preflight where a fault strikes", raw: preflight("/fault", "https://shop.test")},
	{name: "CORS: a GET where a fault strikes", raw: get("cors.test", "/fault", "origin: https://shop.test")},
	{name: "CORS: a preflight without an upstream", raw: preflight("/empty", "https://shop.test")},
	{name: "CORS: a GET without an upstream", raw: get("cors.test", "/empty", "origin: https://shop.test")},
	{name: "CORS: a preflight on a route without a policy", raw: preflight("/", "https://shop.test")},
}

func preflight(path, origin string, lines ...string) string {
	return req("OPTIONS", "cors.test", path, "", append([]string{"origin: " + origin, "access-control-request-method: PUT"}, lines...)...)
}
