{{/* Names */}}
{{- define "millrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "millrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "millrace.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "millrace.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "millrace.selectorLabels" -}}
app.kubernetes.io/name: {{ include "millrace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "millrace.labels" -}}
{{ include "millrace.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "millrace.serviceAccountName" -}}
{{- default (include "millrace.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "millrace.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* A model that is not a path is fetched from a hub. */}}
{{- define "millrace.isFromHub" -}}
{{- if not (hasPrefix "/" .Values.model.source) -}}true{{- end -}}
{{- end -}}

{{- define "millrace.scheme" -}}
{{- if .Values.tls.existingSecret -}}HTTPS{{- else -}}HTTP{{- end -}}
{{- end -}}

{{/* serve.yaml: what the chart decides goes over what the user wrote. */}}
{{- define "millrace.serveConfig" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "model" .Values.model.source -}}
{{- $_ := set $config "port" (int .Values.service.httpPort) -}}
{{- $_ := set $config "grpc-port" (int .Values.service.grpcPort) -}}
{{- $_ := set $config "shutdown-timeout" (int .Values.drain.shutdownTimeoutSeconds) -}}
{{- if .Values.model.servedNames -}}{{- $_ := set $config "served-model-name" .Values.model.servedNames -}}{{- end -}}
{{- if .Values.apiKeys.existingSecret -}}
{{- $_ := set $config "api-key-file" (printf "/etc/millrace/keys/%s" .Values.apiKeys.file) -}}
{{- if .Values.apiKeys.isMetricsPublic -}}{{- $_ := set $config "metrics-public" true -}}{{- end -}}
{{- end -}}
{{- if .Values.tls.existingSecret -}}
{{- $_ := set $config "ssl-certfile" "/etc/millrace/tls/tls.crt" -}}
{{- $_ := set $config "ssl-keyfile" "/etc/millrace/tls/tls.key" -}}
{{- end -}}
{{- $_ := set $config "response-cache-ttl" (int .Values.responseCache.ttlSeconds) -}}
{{- if .Values.responseCache.redisUrlSecret.name -}}
{{- $_ := set $config "response-cache-url-file" (printf "/etc/millrace/redis/%s" .Values.responseCache.redisUrlSecret.key) -}}
{{- else -}}
{{- $_ := set $config "response-cache" .Values.responseCache.store -}}
{{- $_ := set $config "response-cache-size" .Values.responseCache.size -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
