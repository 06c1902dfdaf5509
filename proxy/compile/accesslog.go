package compile

import (
	"fmt"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"

	"weft.mesh/weft/proxy/config"
)

func (c *Compiler) accessLogs(xs []*accesslogv3.AccessLog, tcp bool) ([]*config.AccessLog, error) {
	var out []*config.AccessLog
	for i, x := range xs {
		l, err := c.accessLog(x, tcp)
		if err != nil {
			return nil, index("access_log", i, err)
		}
		out = append(out, l)
	}
	return out, nil
}

func (c *Compiler) accessLog(x *accesslogv3.AccessLog, tcp bool) (*config.AccessLog, error) {
	l := AccessLog{Name: x.GetName(), TCP: tcp}
	var err error
	switch x.GetTypedConfig().MessageName() {
	case "envoy.extensions.access_loggers.file.v3.FileAccessLog":
		err = c.fileLog(&l, x)
	case "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog":
		var s streamv3.StdoutAccessLog
		l.Path = "/dev/stdout"
		if err = unpack(x.GetTypedConfig(), &s); err == nil {
			err = c.logFormat(&l, s.GetLogFormat())
		}
	case "envoy.extensions.access_loggers.stream.v3.StderrAccessLog":
		var s streamv3.StderrAccessLog
		l.Path = "/dev/stderr"
		if err = unpack(x.GetTypedConfig(), &s); err == nil {
			err = c.logFormat(&l, s.GetLogFormat())
		}
	default:
		err = bad("typed_config.type_url", x.GetTypedConfig().GetTypeUrl(), "access logger not supported; want FileAccessLog, StdoutAccessLog or StderrAccessLog")
	}
	if err != nil {
		return nil, err
	}
	if c.set.AccessLog == nil {
		return nil, fmt.Errorf("this proxy keeps no access logs")
	}
	out, err := c.set.AccessLog(l)
	return out, at("typed_config", err)
}

func (c *Compiler) fileLog(l *AccessLog, x *accesslogv3.AccessLog) error {
	var f filev3.FileAccessLog
	if err := unpack(x.GetTypedConfig(), &f); err != nil {
		return err
	}
	l.Path = f.GetPath()
	switch s := f.GetAccessLogFormat().(type) {
	case nil:
	case *filev3.FileAccessLog_Format:
		l.Text = s.Format
	case *filev3.FileAccessLog_JsonFormat:
		l.JSON = s.JsonFormat
	case *filev3.FileAccessLog_LogFormat:
		return c.logFormat(l, s.LogFormat)
	default:
		return bad("typed_config.access_log_format", fmt.Sprintf("%T", s), "not supported")
	}
	return nil
}

func (c *Compiler) logFormat(l *AccessLog, x *corev3.SubstitutionFormatString) error {
	if x == nil {
		return nil
	}
	l.OmitEmpty = x.GetOmitEmptyValues()
	switch f := x.GetFormat().(type) {
	case *corev3.SubstitutionFormatString_TextFormat:
		l.Text = f.TextFormat
	case *corev3.SubstitutionFormatString_TextFormatSource:
		b, err := c.dataSource("typed_config.log_format.text_format_source", f.TextFormatSource)
		if err != nil {
			return err
		}
		l.Text = string(b)
	case *corev3.SubstitutionFormatString_JsonFormat:
		l.JSON = f.JsonFormat
	default:
		return bad("typed_config.log_format", fmt.Sprintf("%T", f), "want text_format, text_format_source or json_format")
	}
	return nil
}
