package protocol

import (
	"bytes"
	"encoding/base64"
	be "encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/proxy/proxytest"
)

const webFilter = `- {name: envoy.filters.http.grpc_web, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb}}`

// webAnswer is what a browser's gRPC-Web client makes of an answer.
type webAnswer struct {
	status   int
	messages [][]byte
	trailers string // of the body's last frame, or what the head says of the status
}

// webCall calls a method as a browser does, over HTTP/1.1.
func webCall(t *testing.T, port int, text bool, method string, q proto.Message, header ...string) webAnswer {
	t.Helper()
	b, err := proto.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	body := append(be.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
	media := "application/grpc-web+proto"
	if text {
		media = "application/grpc-web-text+proto"
		body = []byte(base64.StdEncoding.EncodeToString(body))
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", fmt.Sprintf("http://127.0.0.1:%d/grpc.testing.TestService/%s", port, method), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", media)
	req.Header.Set("Accept", media)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); ct != media {
		t.Errorf("content-type %q, want %q", ct, media)
	}
	if len(resp.Trailer) > 0 {
		t.Errorf("trailers: %v", resp.Trailer)
	}
	a := webAnswer{status: resp.StatusCode}
	if s := resp.Header.Get("Grpc-Status"); s != "" {
		a.trailers = "grpc-status:" + s + "\r\ngrpc-message:" + resp.Header.Get("Grpc-Message") + "\r\n"
	}
	if text {
		got = unpad(t, got)
	}
	for len(got) > 0 {
		n := be.BigEndian.Uint32(got[1:5])
		if got[0] == 0x80 {
			a.trailers = string(got[5 : 5+n])
		} else {
			a.messages = append(a.messages, got[5:5+n])
		}
		got = got[5+n:]
	}
	return a
}

// unpad decodes base64 that is padded after each frame.
func unpad(t *testing.T, text []byte) (out []byte) {
	t.Helper()
	for ; len(text) >= 4; text = text[4:] {
		b, err := base64.StdEncoding.DecodeString(string(text[:4]))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

func TestGRPCWebCallsReachAGRPCServer(t *testing.T) {
	p := startPair(t, pairOptions{app: proxytest.StartGRPC(t), between: "http2", up: "http2", filters: webFilter})
	for _, text := range []bool{false, true} {
		t.Run(fmt.Sprintf("text %v", text), func(t *testing.T) {
			a := webCall(t, p.port, text, "UnaryCall", &testpb.SimpleRequest{ResponseSize: 314159, Payload: &testpb.Payload{Body: make([]byte, 271828)}})
			var r testpb.SimpleResponse
			if len(a.messages) != 1 || proto.Unmarshal(a.messages[0], &r) != nil || len(r.GetPayload().GetBody()) != 314159 || !strings.Contains(a.trailers, "grpc-status:0\r\n") {
				t.Errorf("unary: %d, %d messages, %q", a.status, len(a.messages), a.trailers)
			}
			q := &testpb.StreamingOutputCallRequest{}
			for _, n := range []int32{1, 70000, 0, 3} {
				q.ResponseParameters = append(q.ResponseParameters, &testpb.ResponseParameters{Size: n})
			}
			a = webCall(t, p.port, text, "StreamingOutputCall", q)
			if len(a.messages) != 4 || !strings.Contains(a.trailers, "grpc-status:0\r\n") {
				t.Errorf("server streaming: %d messages, %q", len(a.messages), a.trailers)
			}
			a = webCall(t, p.port, text, "UnaryCall", &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: 9, Message: "not now"}},
				"x-grpc-test-echo-initial", "there and back")
			if a.status != 200 || len(a.messages) != 0 || !strings.Contains(a.trailers, "grpc-status:9\r\n") || !strings.Contains(a.trailers, "grpc-message:not now\r\n") {
				t.Errorf("a status: %d, %q", a.status, a.trailers)
			}
			a = webCall(t, p.port, text, "NoSuchMethod", &testpb.Empty{})
			if a.status != 200 || !strings.Contains(a.trailers, "grpc-status:12\r\n") {
				t.Errorf("unimplemented: %d, %q", a.status, a.trailers)
			}
		})
	}
	p.caller.WaitStat(`grpc_response_status="9"`)
	p.callee.WaitStat(`grpc_response_status="12"`)
	p.caller.WaitStat(`istio_response_messages_total{`)
	p.logged(t, `"POST /grpc.testing.TestService/StreamingOutputCall HTTP/1.1" 200`)
}

func TestGRPCWebClientsLearnWhatTheProxySays(t *testing.T) {
	p := startPair(t, pairOptions{app: proxytest.Port(t), between: "http2", up: "http2", filters: webFilter}) // nobody listens
	a := webCall(t, p.port, false, "UnaryCall", &testpb.SimpleRequest{})
	if a.status != 200 && a.status != 503 || !strings.HasPrefix(a.trailers, "grpc-status:14\r\n") || !strings.Contains(a.trailers, "upstream connect error") {
		t.Errorf("no upstream: %d, %q", a.status, a.trailers)
	}
	resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/grpc.testing.TestService/UnaryCall", p.port), "application/grpc-web-text", strings.NewReader("no base64!!"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 400 || resp.Header.Get("Grpc-Status") != "13" || resp.Header.Get("Grpc-Message") != "Bad gRPC-web request, invalid base64 data." {
		t.Errorf("bad text: %d %v", resp.StatusCode, resp.Header)
	}
	p.logged(t, "grpc_base_64_decode_failed")
}
