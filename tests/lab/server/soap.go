package main

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

type envelope struct {
	XMLName xml.Name    `xml:"soapenv:Envelope"`
	Enc     string      `xml:"xmlns:soapenc,attr"`
	Env     string      `xml:"xmlns:soapenv,attr"`
	XSD     string      `xml:"xmlns:xsd,attr"`
	XSI     string      `xml:"xmlns:xsi,attr"`
	Body    interface{} `xml:"soapenv:Body"`
}

// response writes <NAMEResponse> around a value: nothing, a library type that
// is the whole response, or a returnval.
type response struct {
	name  string
	value interface{}
}

func (r *response) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	element := xml.StartElement{Name: xml.Name{Space: "urn:" + vim25.Namespace, Local: r.name + "Response"}}
	value := r.value
	if value == nil {
		value = struct{}{}
	} else if !isResponse(value) {
		value = struct {
			Returnval interface{} `xml:"returnval,typeattr"`
		}{value}
	}
	if err := e.EncodeElement(value, element); err != nil {
		return err
	}
	return e.EncodeToken(start.End())
}

func isResponse(value interface{}) bool {
	t := reflect.TypeOf(value)
	if t.Kind() == reflect.Ptr {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct && strings.HasSuffix(t.Name(), "Response")
}

type faultDetail struct{ fault types.BaseMethodFault }

func (d *faultDetail) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	kind := reflect.TypeOf(d.fault).Elem().Name()
	start.Name.Local = kind + "Fault"
	start.Attr = append(start.Attr,
		xml.Attr{Name: xml.Name{Local: "xmlns"}, Value: "urn:" + vim25.Namespace},
		xml.Attr{Name: xml.Name{Local: "xsi:type"}, Value: kind})
	return e.EncodeElement(d.fault, start)
}

type soapFault struct {
	XMLName xml.Name `xml:"soapenv:Fault"`
	Code    string   `xml:"faultcode"`
	String  string   `xml:"faultstring"`
	Detail  struct {
		Fault *faultDetail
	} `xml:"detail"`
}

// encode makes the HTTP status and body of an answer.
func encode(name string, value interface{}, fault types.BaseMethodFault) (int, []byte, error) {
	status := http.StatusOK
	var body interface{} = &response{name, value}
	if fault != nil {
		status = http.StatusInternalServerError
		f := &soapFault{Code: "ServerFaultCode", String: faultText(fault)}
		f.Detail.Fault = &faultDetail{fault}
		body = struct{ Fault *soapFault }{f}
	}
	var out bytes.Buffer
	out.WriteString(xml.Header)
	err := xml.NewEncoder(&out).Encode(&envelope{
		Enc:  "http://schemas.xmlsoap.org/soap/encoding/",
		Env:  "http://schemas.xmlsoap.org/soap/envelope/",
		XSD:  "http://www.w3.org/2001/XMLSchema",
		XSI:  "http://www.w3.org/2001/XMLSchema-instance",
		Body: body,
	})
	return status, out.Bytes(), err
}

// faultText is the sentence a client shows: the fault's name, and what it says about itself.
func faultText(fault types.BaseMethodFault) string {
	value := reflect.ValueOf(fault).Elem()
	text := value.Type().Name()
	for _, field := range []string{"Reason", "File", "Name", "InvalidProperty", "Property", "PrivilegeId", "Datastore"} {
		if f := value.FieldByName(field); f.IsValid() && f.Kind() == reflect.String && f.Len() > 0 {
			return fmt.Sprintf("%s: %s", text, f)
		}
	}
	return text
}

// decodeType finds a wire type by its name, with or without a namespace prefix.
func decodeType(name string) (reflect.Type, bool) {
	find := types.TypeFunc()
	if t, ok := find(name); ok {
		return t, true
	}
	if i := strings.Index(name, ":"); i >= 0 {
		return find(name[i+1:])
	}
	return nil, false
}
