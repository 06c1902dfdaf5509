package conformance

// difference is one that stays, and why.
type difference struct {
	why   string
	ours  string // our outcome holds this
	suite string // gateway or sidecar; "": both
}

// Reasons that several cases share. docs/reference/envoy-differences.md tells them to users.
const (
	keepsConnection = "Envoy closes a connection when it answers before it has read the request; we read the rest, within bounds, and go on"
	closedAnyway    = "the same refusal, but Envoy closes the connection after it"
	strictHTTP      = "RFC 9112 lets a server refuse this; two parsers that read it differently are how requests are smuggled"
	strictAnswer    = "a response that is not HTTP as RFC 9112 has it is answered with 502"
	oneHost         = "RFC 9112 section 3.2: no Host, or more than one, is a 400"
	staleRetry      = "an idempotent request on a pooled connection that ends without a byte is sent once more, on a fresh one (RFC 9110 section 9.2.2)"
	ownMethods      = "methods are an open set (RFC 9110 section 9.1)"
	noLengthForHead = "a response to HEAD without a body needs no transfer-encoding (RFC 9112 section 6.1)"
	teIsHop         = "a sender of TE names it in Connection (RFC 9110 section 10.1.4)"
	badChunks       = "refused like Envoy, after the head went to the upstream; the upstream's connection is cut, so that it cannot take the part for the whole"
	passesTrailers  = "trailers are passed on over HTTP/1 too"
	peerMetadata    = "x-envoy-peer-metadata is between proxies; a real Envoy of Istio's takes it off in a filter that plain Envoy lacks"
	mirrorHeaders   = "a copy carries what the request carried, and our address; Envoy adds its attempt count and x-envoy-internal"
	abortAborts     = "an abort with a gRPC status fails requests that are not gRPC too, with the status that fits; Envoy answers 200"
	ownTrace        = "weft-proxy takes part in a trace without a tracer"
	everyEnvoy      = "from outside no x-envoy-* field is let in, not only those that Envoy knows"
	joinedLines     = "lines of one name stay apart, as the application sent them"
	upgradeNoRetry  = "an upgrade is not retried"
	corsEverywhere  = "a CORS policy holds for redirects and direct responses too: a page cannot read them without"
)

// knownDifferences by case.
var knownDifferences = map[string]difference{
	"a direct response to a request with a body":       {why: keepsConnection, ours: "HTTP/1.1 211"},
	"redirect: POST with a body":                       {why: keepsConnection, ours: "HTTP/1.1 301"},
	"an abort of a request with a body":                {why: keepsConnection, ours: "HTTP/1.1 555"},
	"an abort with a gRPC status for gRPC over HTTP/1": {why: keepsConnection, ours: "grpc-status: 14"},
	"denied with a body":                               {why: keepsConnection, ours: "RBAC: access denied"},
	"denied gRPC over HTTP/1":                          {why: keepsConnection, ours: "grpc-status: 7"},
	"a request after a redirect with a body":           {why: keepsConnection, ours: "HTTP/1.1 211"},
	"a websocket that is refused":                      {why: keepsConnection, ours: "HTTP/1.1 403"},
	"a websocket to a direct response":                 {why: keepsConnection, ours: "HTTP/1.1 211"},
	"an upgrade to something else":                     {why: closedAnyway, ours: "HTTP/1.1 403"},
	"an escaped null":                                  {why: closedAnyway, ours: "HTTP/1.1 400"},
	"denied by method in lower case":                   {why: closedAnyway, ours: "HTTP/1.1 400"},
	"a method in lower case":                           {why: closedAnyway, ours: "HTTP/1.1 400"},
	"scheme of an absolute form":                       {why: "the scheme of a request is that of its connection; a client's claim to the contrary changes nothing", ours: "HTTP/1.1 404", suite: "gateway"},
	"an absolute form of https":                        {why: "as above; Envoy refuses with 403", ours: "x-forwarded-proto: http\n"},
	"escaped dots with a parameter":                    {why: "dot segments are resolved after unescaping, with or without a parameter; Envoy leaves this one", ours: "GET /b HTTP/1.1"},
	"an escape that is none":                           {why: strictHTTP, ours: "refused 400"},
	"an escape that is cut":                            {why: strictHTTP, ours: "refused 400"},
	"an absolute form with a query only":               {why: strictHTTP, ours: "refused 400"},
	"an absolute form without host":                    {why: oneHost, ours: "refused 400"},
	"an absolute form with a user":                     {why: "user information in a request is a deception (RFC 9110 section 4.2.4)", ours: "refused 400"},
	"a host with a user":                               {why: "user information in a request is a deception (RFC 9110 section 4.2.4)", ours: "refused 400"},
	"a host with a port of letters":                    {why: strictHTTP, ours: "refused 400"},
	"an empty host":                                    {why: oneHost, ours: "HTTP/1.1 400"},
	"two hosts":                                        {why: oneHost, ours: "refused 400"},
	"two different hosts":                              {why: oneHost, ours: "refused 400"},
	"redirect: HEAD":                                   {why: noLengthForHead, ours: "location: http://redirect.test/to"},
	"HEAD of a chunked answer":                         {why: noLengthForHead, ours: "HTTP/1.1 200"},
	"an answer of HEAD without length":                 {why: noLengthForHead, ours: "HTTP/1.1 200"},
	"a B3 context":                                     {why: ownTrace, ours: "x-b3-parentspanid: b7ad6b7169203331"},
	"x-envoy-original-host":                            {why: everyEnvoy, suite: "gateway"},
	"a caller cannot inject faults":                    {why: everyEnvoy, suite: "gateway"},
	"x-envoy-peer-metadata":                            {why: peerMetadata},
	"hop-by-hop headers":                               {why: teIsHop, ours: "connection: te"},
	"te trailers":                                      {why: teIsHop, ours: "connection: te"},
	"hop-by-hop headers of an answer":                  {why: "what Connection names is taken off responses too (RFC 9110 section 7.6.1)"},
	"a mirrored request":                               {why: mirrorHeaders, ours: "upstream mirror"},
	"a mirrored GET":                                   {why: mirrorHeaders, ours: "upstream mirror"},
	"a mirrored and rewritten request":                 {why: mirrorHeaders, ours: "upstream mirror"},
	"x-forwarded-for in two lines":                     {why: joinedLines, ours: "x-forwarded-for: 5.6.7.8, 9.9.9.9", suite: "sidecar"},
	"x-forwarded-proto twice":                          {why: joinedLines, ours: "x-forwarded-proto: http\n", suite: "sidecar"},
	"reset for ever":                                   {why: staleRetry, ours: "x-envoy-attempt-count: 4"},
	"no retries":                                       {why: staleRetry, ours: "x-envoy-attempt-count: 2"},
	"by default a reset is not retried":                {why: staleRetry, ours: "x-envoy-attempt-count: 2"},
	"nothing as an answer":                             {why: staleRetry, ours: "x-envoy-attempt-count: 2"},
	"an abort with a gRPC status over HTTP/1":          {why: abortAborts, ours: "HTTP/1.1 503"},
	"an abort with a gRPC status for plain HTTP":       {why: abortAborts, ours: "HTTP/2.0 429"},
	"denied by another path":                           {why: "policies are asked before there is a route to miss; Envoy answers 404 to OPTIONS * first", ours: "HTTP/1.1 403"},
	"a chunked body with trailers":                     {why: passesTrailers, ours: "trailer x-t: 1"},
	"a chunked answer to te trailers":                  {why: passesTrailers, ours: "trailer x-trailer: t"},
	"from HTTP/2 to HTTP/1":                            {why: passesTrailers, ours: "trailer x-trailer: t"},
	"early hints":                                      {why: "103 is passed on (RFC 8297)", ours: "HTTP/1.1 103"},
	"expect something else":                            {why: "an expectation that nobody meets is answered 417 (RFC 9110 section 10.1.1)", ours: "refused 417"},
	"expect 100-continue to a direct response":         {why: "a client is not asked for a body that nobody reads (RFC 9110 section 10.1.1)", ours: "HTTP/1.1 211"},
	"an answer that is not HTTP":                       {why: "the upstream ended the connection in the middle of a head: 503 instead of 502", ours: "HTTP/1.1 503"},
	"an answer with bare line feeds":                   {why: strictAnswer, ours: "HTTP/1.1 502"},
	"an answer with a folded header":                   {why: strictAnswer, ours: "HTTP/1.1 502"},
	"an answer of status 99":                           {why: strictAnswer, ours: "HTTP/1.1 502"},
	"an answer of 101 that nobody asked for":           {why: strictAnswer, ours: "HTTP/1.1 502"},
	"bad: a folded header":                             {why: strictHTTP, ours: "refused"},
	"bad: a bare return in a value":                    {why: strictHTTP, ours: "refused"},
	"bad: bare line feeds":                             {why: strictHTTP, ours: "refused"},
	"bad: a bare line feed in one line":                {why: strictHTTP, ours: "refused"},
	"bad: two spaces":                                  {why: strictHTTP, ours: "refused"},
	"bad: a tab in the request line":                   {why: strictHTTP, ours: "refused"},
	"bad: a chunk size with a space":                   {why: strictHTTP, ours: "refused"},
	"bad: a chunk that is longer":                      {why: badChunks, ours: "refused"},
	"bad: a chunk that ends in a line feed":            {why: strictHTTP, ours: "refused"},
	"a method of one's own":                            {why: ownMethods, ours: "FETCH / HTTP/1.1"},
	"a method of one's own with a body":                {why: ownMethods, ours: "FETCH / HTTP/1.1"},
	"a method with punctuation":                        {why: ownMethods, ours: "M-SEARCH / HTTP/1.1"},
	"a path of 70 KiB":                                 {why: "414 names the cause (RFC 9110 section 15.5.15)", ours: "refused 414"},
	"CONNECT":                                          {why: "CONNECT is refused as such, with 403, not as a route that is missing", ours: "refused 403"},
	"pipelined requests":                               {why: "Envoy ends a connection when it answers one of several pipelined requests itself; we answer them all", ours: "GET /3 HTTP/1.1"},
	"a websocket to a dead upstream":                   {why: upgradeNoRetry, ours: "HTTP/1.1 503"},
	"an upgrade with a body":                           {why: "a request with a body is no upgrade; Envoy keeps the client waiting", ours: `body "hello"`},
	"an upgrade to h2c":                                {why: "HTTP/2 by upgrade is taken (RFC 7540 section 3.2); Envoy ignores it", ours: "HTTP/1.1 101"},
	"CORS: a preflight with a body":                    {why: keepsConnection, ours: "access-control-allow-methods: GET,PUT"},
	"CORS: a preflight of a redirect":                  {why: corsEverywhere, ours: "access-control-allow-methods: GET"},
	"CORS: a GET that is redirected":                   {why: corsEverywhere, ours: "access-control-allow-origin: https://shop.test"},
	"CORS: a preflight of a direct response":           {why: corsEverywhere, ours: "access-control-allow-methods: GET"},
	"CORS: a GET that is answered directly":            {why: corsEverywhere, ours: "access-control-allow-origin: https://shop.test"},
	"CORS: anyone, and no headers asked for":           {why: "Envoy sends access-control-allow-headers without a value", ours: "access-control-allow-methods: PUT"},
	"gRPC-Web: an answer that is no gRPC":              {why: teIsHop, ours: "connection: te"},
}
